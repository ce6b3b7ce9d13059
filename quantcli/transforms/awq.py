"""AWQ: columns that read large inputs are made larger, so that rounding hurts them less (Lin and others 2023).

s = (sqrt(E x^2) / geometric mean)^alpha, with the alpha of a grid that loses least: the feed's matrices are encoded as
they are planned, columns times s, and judged by tr(E H E^T) on some of their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.plain import search_for

Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]

GRID = tuple(step / 10 for step in range(8))  # alpha: 0 is no change
ROWS = 256  # of a feed, shared by its matrices, that are judged
SMALLEST = 1e-6  # of the mean square of a column, relative to the mean over columns


@dataclass(frozen=True)
class Reader:
    """A matrix of a feed: ``values`` float32 [rows, columns], and the type that is planned for it.

    ``stands_for``: how many rows each of these speaks for.
    """

    values: Floats
    type: TensorType
    stands_for: float = 1.0


def magnitudes(hessian: Doubles) -> Doubles:
    """sqrt(E x^2) of every column."""
    squares = numpy.diagonal(hessian).copy()
    sizes: Doubles = numpy.sqrt(numpy.maximum(squares, SMALLEST * max(squares.mean(), 1e-30)))
    return sizes


def best_scale(readers: Sequence[Reader], hessian: Doubles, sizes: Doubles) -> tuple[Floats, float]:
    """(s float32 [columns], alpha). ``sizes``: positive, per column, equal where columns share a channel."""
    relative = sizes / numpy.exp(numpy.log(sizes).mean())
    sample = [_sampled(reader, len(readers)) for reader in readers]
    best, chosen, least = numpy.ones(len(sizes), numpy.float32), 0.0, numpy.inf
    for alpha in GRID:
        scale = (relative**alpha).astype(numpy.float32)
        lost = sum(_lost(reader, hessian, scale) for reader in sample)
        if lost < least:
            best, chosen, least = scale, alpha, lost
    return best, chosen


def _sampled(reader: Reader, matrices: int) -> Reader:
    """Some of the matrix's rows, evenly spread."""
    count = min(len(reader.values), max(16, ROWS // matrices))
    rows = numpy.linspace(0, len(reader.values) - 1, count).astype(numpy.intp)
    return Reader(numpy.ascontiguousarray(reader.values[rows]), reader.type, len(reader.values) / count)


def _lost(reader: Reader, hessian: Doubles, scale: Floats) -> float:
    """tr(E H E^T) of the sample when its columns are encoded times ``scale``."""
    importance = (numpy.diagonal(hessian) / numpy.square(scale, dtype=numpy.float64)).astype(numpy.float32)
    search = search_for(reader.type, "ggml")
    blocks = kernels.encode(reader.type.id, reader.values * scale, importance, search=search)
    error = (kernels.decode(reader.type.id, blocks, *reader.values.shape) / scale - reader.values).astype(numpy.float64)
    return reader.stands_for * float(((error @ hessian) * error).sum())
