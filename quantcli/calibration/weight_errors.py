"""What every type would cost: tr(E H E^T) of the error E of a plain encoding, H the second moment of the inputs.

Compensation lowers it for all types by much the same factor, so the plain encoding says how types compare. Of large
matrices some rows speak for all, of many experts some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy

from quantcli.calibration.float_stream import LayerMoments
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.runner.arrays import Bytes, Doubles, Floats
from quantcli.runner.weights import Packed, PackedMatrix

ROWS = 256  # of a matrix that are encoded
EXPERTS = 8  # of a tensor that are looked at
SEARCH = "ggml"  # quick, and as good for a comparison
SMALLEST = 1e-8  # importance of a column, relative to the mean

Types = Mapping[str, Sequence[TensorType]]  # by tensor name


@dataclass(frozen=True)
class Costs:
    """Of one tensor. ``errors``: type name -> mean squared error of its outputs, summed over rows, per token.

    ``importance``: float32 [matrices, columns], mean squares of its inputs; ``tokens``: [matrices].
    """

    errors: dict[str, float]
    importance: Floats
    tokens: Doubles


def of_layer(layer: LayerMoments, types: Types, threads: int) -> dict[str, Costs]:
    """The costs of every tensor of a layer that ``types`` names."""
    found = {}
    for stage in layer.stages:
        for weight in stage.weights:
            if weight.name in types:
                found[weight.name] = _of_tensor(weight, layer, types[weight.name], threads)
    return found


def _of_tensor(weight: PackedMatrix, layer: LayerMoments, types: Sequence[TensorType], threads: int) -> Costs:
    moments = [layer.fit.of(weight, number) for number in range(weight.matrices)]
    tokens = numpy.array([float(one.tokens) for one in moments])
    importance = numpy.stack([importance_of(numpy.diagonal(one.mean_hessian())) for one in moments])
    seen = [number for number in numpy.argsort(-tokens, kind="stable").tolist() if tokens[number]]
    some = [seen[place] for place in _spread(len(seen), EXPERTS)]
    rows = _spread(weight.rows, max(ROWS // max(len(some), 1), 32))
    errors = dict.fromkeys((one.name for one in types), 0.0)
    for number in some:
        values = numpy.ascontiguousarray(weight.decode(matrix=number)[rows])
        share = tokens[number] / tokens[some].sum() * weight.rows / len(rows)
        hessian = moments[number].mean_hessian()
        for name, error in row_errors(values, hessian, importance[number], types, threads).items():
            errors[name] += share * error
    return Costs(errors, importance, tokens)


def row_errors(
    values: Floats, hessian: Doubles, importance: Floats, types: Sequence[TensorType], threads: int
) -> dict[str, float]:
    """tr(E H E^T) of rows ``values`` [m, n] in every type."""

    def one(tensor_type: TensorType) -> float:
        blocks = kernels.encode(tensor_type.id, values, importance, search=SEARCH)
        error = kernels.decode(tensor_type.id, blocks, *values.shape) - values
        wide = error.astype(numpy.float64)
        return float(((wide @ hessian) * wide).sum())

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip((each.name for each in types), pool.map(one, types), strict=True))


def importance_of(squares: Doubles) -> Floats:
    """Weights of columns for an encoder, float32, from mean squares of inputs; none is zero."""
    mean = float(squares.mean())
    if not mean > 0:
        return numpy.ones(len(squares), numpy.float32)
    return numpy.maximum(squares, SMALLEST * mean).astype(numpy.float32)


def encoded(weight: PackedMatrix, tensor_type: TensorType, importance: Floats, threads: int) -> Packed:
    """A whole tensor in a type by the quick search. ``importance``: [matrices, columns]."""

    slabs = [(number, start) for number in range(weight.matrices) for start in range(0, weight.rows, ROWS)]

    def one(slab: tuple[int, int]) -> Bytes:
        number, start = slab
        rows = numpy.arange(start, min(start + ROWS, weight.rows))
        values = kernels.decode(weight.type.id, weight.data[number, rows], len(rows), weight.columns)
        return kernels.encode(tensor_type.id, values, importance[number], search=SEARCH)

    with ThreadPoolExecutor(threads) as pool:
        return Packed(tensor_type, numpy.concatenate(list(pool.map(one, slabs))))


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` of 0 to ``count`` - 1, evenly spread."""
    return sorted({int(place) for place in numpy.linspace(0, count - 1, min(count, most))}) if count else []
