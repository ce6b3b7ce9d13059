"""HQQ: half-quadratic quantization, a search without data for small errors to the power of 3/4 instead of 2.

After Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023): sum |w - r|^p, p < 1,
cares less for a few large errors than for many small ones. A variable takes the large errors away (a shrinkage of
|w - r|), what is left is a least-squares problem in the scale or the minimum of the sub-block, and both alternate. Here

- the start is the plain search, whose scales are better than the published start from the largest weight;
- types with minima keep the scale and move the minimum, symmetric ones move the scale;
- errors are measured in steps of the scale, so that beta means the same for every tensor (as published, errors of
  weights of 0.02 lie far below the threshold and nothing is ever taken away);
- parameters are rounded to what the type stores, and a block keeps them only where its sum of |error|^p came out lower.

All arithmetic is float32 addition, multiplication, division and square root, each rounded as IEEE says, and sums have a
tree of their own: the bytes are the same on every machine. So p is 3/4 (|e|^(p - 1) is 1 / sqrt(sqrt(|e|))), not the
published 0.7, whose power function is not.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.ggml import kernels
from quantcli.ggml.kernels import Layout
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import plain
from quantcli.methods.seam import Blocks, Matrix, RowEncoder, Rows, Settings, Statistics

ROUNDS = 20
BETA, KAPPA = 10.0, 1.01  # the shrinkage of the first round, and what multiplies it from round to round
LARGEST_HALF = numpy.float32(65504)
TILE = 1 << 14  # weights that are searched at once: the arrays of a round stay in a core's cache

Values: TypeAlias = NDArray[numpy.float32]


TYPES = frozenset(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))


def prepare(matrix: Matrix, tensor_type: TensorType, statistics: Statistics, settings: Settings) -> RowEncoder:
    """An encoder of rows that looks at nothing but the rows: every sub-block is a search of its own."""
    search = plain.prepare(matrix, tensor_type, statistics, settings)
    step = max(TILE // max(matrix.columns, 1), 1)

    def encode(rows: Rows, start: int, out: Blocks) -> Blocks:
        search(rows, start, out)  # finds weights that are not finite, too
        for first in range(0, len(rows), step):
            improve(tensor_type, rows[first : first + step], out[first : first + step])
        return out

    return encode


def improve(tensor_type: TensorType, rows: Rows, blocks: Blocks) -> None:
    """Replace the blocks of encoded rows for which the half-quadratic search finds a lower sum of |error|^p."""
    layout = kernels.layout(tensor_type.id)
    assert layout is not None
    scale, minimum = kernels.parameters(tensor_type.id, blocks, *rows.shape)
    lanes = numpy.ascontiguousarray(rows.reshape(-1, layout.sub_block).T)
    with numpy.errstate(all="ignore"):  # what overflows is not used
        if layout.minima:
            moved = moved_minimum(lanes, scale.reshape(-1), minimum.reshape(-1), layout).reshape(scale.shape)
            minimum = within_half(moved, minimum)
        else:
            scale = within_half(moved_scale(lanes, scale.reshape(-1), layout).reshape(scale.shape), scale)
        found = kernels.set_parameters(tensor_type.id, scale, minimum)
        kernels.assign(tensor_type.id, rows, found)
        better = objective(tensor_type, rows, found) < objective(tensor_type, rows, blocks)
    blocks.reshape(-1, tensor_type.bytes)[better] = found.reshape(-1, tensor_type.bytes)[better]


def within_half(moved: Values, kept: Values) -> Values:
    """``moved``, but ``kept`` where half precision cannot hold it."""
    return numpy.where(numpy.abs(moved) <= LARGEST_HALF, moved, kept)


def objective(tensor_type: TensorType, rows: Rows, blocks: Blocks) -> Values:
    """The sum of |error|^p of every block: float32 [blocks]."""
    errors = kernels.decode(tensor_type.id, blocks, *rows.shape)
    numpy.abs(numpy.subtract(errors, rows, out=errors), out=errors)
    roots = numpy.sqrt(errors)
    return total((roots * numpy.sqrt(roots)).reshape(-1, tensor_type.block).T)


# ---- the alternation, on columns of sub-blocks: [size, sub-blocks]


def moved_minimum(weights: Values, scale: Values, minimum: Values, layout: Layout) -> Values:
    """The minimum [sub-blocks] of sub-blocks [size, sub-blocks] that keep their scale."""
    inverse = inverted(scale)
    steps, offset = weights * inverse, minimum * inverse
    beta = BETA
    for _ in range(ROUNDS):
        codes = numpy.rint(steps - offset)
        numpy.clip(codes, layout.low, layout.high, out=codes)
        left = numpy.subtract(steps, codes, out=codes)  # the minimum that each weight would like
        left -= large_errors(left - offset, beta)
        offset = total(left) * numpy.float32(1 / len(weights))
        beta *= KAPPA
    return offset * scale


def moved_scale(weights: Values, scale: Values, layout: Layout) -> Values:
    """The scale [sub-blocks] of symmetric sub-blocks [size, sub-blocks]; one whose codes are all 0 keeps its own."""
    beta = BETA
    for _ in range(ROUNDS):
        steps = weights * inverted(scale)
        codes = numpy.rint(steps)
        numpy.clip(codes, layout.low, layout.high, out=codes)
        steps -= large_errors(steps - codes, beta)
        norm = total(codes * codes)
        change = numpy.divide(total(steps * codes), norm, out=numpy.ones_like(norm), where=norm > 0)
        scale = scale * change
        beta *= KAPPA
    return scale


def large_errors(errors: Values, beta: float) -> Values:
    """sign(e) * max(|e| - |e|^(p - 1) / beta, 0), the proximal step of the p-th power. Overwrites ``errors``."""
    size = numpy.abs(errors)
    root = numpy.sqrt(size)
    numpy.sqrt(root, out=root)
    numpy.divide(numpy.float32(1 / beta), root, out=root)  # infinite for an error of 0, which is not large
    size -= root
    numpy.maximum(size, 0, out=size)
    return numpy.copysign(size, errors, out=errors)


def inverted(scale: Values) -> Values:
    """1 / scale, 0 where the scale is 0."""
    return numpy.divide(numpy.float32(1), scale, out=numpy.zeros_like(scale), where=scale != 0)


def total(values: Values) -> Values:
    """Sums over the first axis, whose length is a power of two, as a tree: numpy's own order may change."""
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    return values.reshape(-1)
