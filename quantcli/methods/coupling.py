"""Rows that make up for each other's errors.

An error E of a matrix's weights costs the predictions tr(A E H E^T) / 2: H is the second moment of its inputs, A that
of the gradients at its outputs. Compensation by columns alone takes A for a diagonal. Where it is not (queries and
keys meet in a score, all of a layer's outputs in one stream), a row can make up for what the rows before it missed:
with A = (I + N) D (I + N)^T, N upper,

    tr(A E H E^T) = sum_i D_i |E_i + sum_{j < i} N_ji E_j|^2_H

so that row i is encoded for W_i + sum_{j < i} N_ji E_j, by any encoder that minimises with H (YAQA, Tseng, Sun and De
Sa 2025, arXiv:2505.22988, with GPTQ's recursion on both sides). Rows are taken in groups, which are encoded side by
side: N has blocks then, and within a group D counts as diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from quantcli.methods.compensation import triangle

Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]
Bytes = NDArray[numpy.uint8]

DAMPINGS = (0.2, 0.4, 0.7)
MOST_LEFT = 0.995  # of the loss, judged by gradients of text that A was not made of: above, rows are not coupled
LEAST_DIAGONAL = 1e-3  # of the mean
# Rows of a group: few, for they do not mind each other; but the kernels take 8 to 16 side by side, threads more.
OF_HEADS, LEAST_OF_STREAM, MOST_OF_STREAM, GROUPS_OF_STREAM = 8, 16, 256, 16

Encode = Callable[[Floats], tuple[Bytes, Floats]]  # rows -> their blocks, and these decoded


@dataclass(frozen=True)
class Coupling:
    """One matrix's rows. B: parts (heads) that do not mind each other, of w rows each.

    ``order``: int64 [B, w], each part's rows from the largest entry of A's diagonal to the smallest. ``factor``:
    float32 [B, w, w], N in that order. ``together``: rows of each part that make one group.
    """

    order: NDArray[numpy.int64]
    factor: Floats
    together: int

    @classmethod
    def chosen(cls, halves: NDArray[numpy.floating]) -> Coupling | None:
        """From A of two halves of a text [2, B, w, w], with the damping with which each half serves the other best.

        None: it does not, or there is no second half.
        """
        one, other = halves.astype(numpy.float64)
        if not one.any() or not other.any():
            return None
        left = {damping: cls.of(one, damping).left(other) + cls.of(other, damping).left(one) for damping in DAMPINGS}
        best = min(DAMPINGS, key=left.__getitem__)
        return cls.of(one + other, best) if left[best] < 2 * MOST_LEFT else None

    @classmethod
    def of(cls, information: NDArray[numpy.floating], damping: float) -> Coupling:
        """From A [B, w, w], symmetric and not negative; its off-diagonal entries are damped."""
        parts, width = information.shape[:2]
        share = width // GROUPS_OF_STREAM // LEAST_OF_STREAM * LEAST_OF_STREAM
        of_stream = min(max(share, LEAST_OF_STREAM), MOST_OF_STREAM)
        together = of_stream if parts == 1 else max(1, OF_HEADS // parts)
        orders, factors = [], []
        for one in information.astype(numpy.float64):
            diagonal = one.diagonal()
            diagonal = numpy.maximum(diagonal, LEAST_DIAGONAL * diagonal.mean() or 1.0)
            order = numpy.argsort(-diagonal, kind="stable")
            damped = (1 - damping) * one
            numpy.fill_diagonal(damped, diagonal)
            orders.append(order)
            factors.append(_upper(damped[numpy.ix_(order, order)], together))
        return cls(numpy.stack(orders), numpy.stack(factors), together)

    def left(self, information: Doubles) -> float:
        """What is left of tr(A E E^T) for another A [B, w, w], of errors that the encoder leaves at random."""
        found = 0.0
        for order, factor, one in zip(self.order, self.factor, information, strict=True):
            spread = numpy.linalg.inv((numpy.eye(len(order)) + factor).T)  # E = (I + N)^-T times free errors
            found += float((one[numpy.ix_(order, order)] @ spread * spread).sum())
        return found / max(float(numpy.trace(information, axis1=1, axis2=2).sum()), 1e-300)

    def goals(self, target: Floats, encode: Encode) -> tuple[Floats, Bytes]:
        """What every row of ``target`` [B w, n] is encoded for, and its blocks, made on the way."""
        parts, width = self.order.shape
        rows = self.order + width * numpy.arange(parts)[:, None]
        goals, errors = target.copy(), numpy.empty((parts, width, target.shape[1]), numpy.float32)
        blocks: Bytes | None = None
        for start in range(0, width, self.together):
            stop = min(start + self.together, width)
            now = rows[:, start:stop].reshape(-1)
            if start:
                back = self.factor[:, :start, start:stop].transpose(0, 2, 1) @ errors[:, :start]
                goals[now] += back.reshape(len(now), -1)
            made, decoded = encode(goals[now])
            if blocks is None:
                blocks = numpy.empty((len(target), made.shape[1]), numpy.uint8)
            blocks[now] = made
            errors[:, start:stop] = (target[now] - decoded).reshape(parts, stop - start, -1)
        assert blocks is not None
        return goals, blocks


def pulled(halves: NDArray[numpy.floating]) -> Floats | None:
    """N float32 [m]: row i of a matrix that reads what another one reads makes up for N_i times the error of its row i.

    ``halves`` [2, m, 2, 2]: A of the two rows, the other matrix's first, over two halves of a text. With the damping
    with which each half serves the other best; None: it does not, or there is no second half.
    """
    one, other = halves.astype(numpy.float64)
    if not one.any() or not other.any():
        return None

    def factor(information: Doubles, damping: float) -> Doubles:
        floor = LEAST_DIAGONAL * information[:, 1, 1].mean()
        found: Doubles = (1 - damping) * information[:, 0, 1] / numpy.maximum(information[:, 1, 1], floor or 1.0)
        return found

    def left(own: Doubles, judge: Doubles, damping: float) -> float:
        n = factor(own, damping)
        change = n * n * judge[:, 1, 1] - 2 * n * judge[:, 0, 1]
        return 1 + float(change.sum()) / max(float(numpy.trace(judge, axis1=1, axis2=2).sum()), 1e-300)

    both = {damping: left(one, other, damping) + left(other, one, damping) for damping in (0.0, *DAMPINGS)}
    best = min(both, key=both.__getitem__)
    return factor(one + other, best).astype(numpy.float32) if both[best] < 2 * MOST_LEFT else None


def coupled(information: NDArray[numpy.floating], errors: Doubles) -> Doubles:
    """A times ``errors`` [B w, n], scaled to a mean diagonal of 1."""
    parts, width = information.shape[:2]
    scale = numpy.trace(information, axis1=1, axis2=2, dtype=numpy.float64).sum() / (parts * width) or 1.0
    found: Doubles = (information.astype(numpy.float64) / scale) @ errors.reshape(parts, width, -1)
    return found.reshape(errors.shape)


def _upper(matrix: Doubles, together: int) -> Floats:
    """N [w, w], zero in its diagonal blocks. The damped matrix is positive definite."""
    root = triangle(matrix)
    assert root is not None
    found = numpy.zeros(matrix.shape, numpy.float32)
    for start in range(together, len(matrix), together):
        block = slice(start, start + together)
        found[:start, block] = root[:start, block] @ numpy.linalg.inv(root[block, block])
    return found
