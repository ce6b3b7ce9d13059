"""A matrix that is changed by a product of two thin ones: W + scale * L R, each element rounded once."""

from __future__ import annotations

import math
from functools import cached_property

import numpy
from numpy.typing import NDArray

from quantcli.views.computed import Computed
from quantcli.views.reader import Reader, decode

_PIECE = 1 << 15  # elements whose sums are held at a time: they stay in cache


class Merged(Computed):
    """``base`` [rows, columns] + ``scale`` * ``left`` [rows, rank] @ ``right`` [rank, columns].

    The sum over the rank is taken in float64, in order, element by element: products of float32 are exact there, and
    the same bytes come out on every machine and for every cut of the rows. One rounding to float32 ends it. With
    ``magnitude`` [rows] every row of the sum is brought to this length first (DoRA).
    """

    def __init__(
        self,
        base: Reader,
        left: Reader,
        right: Reader,
        scale: float,
        magnitude: NDArray[numpy.float64] | None = None,
    ) -> None:
        self._base, self._left, self._right_view, self._scale = base, left, right, scale
        self._magnitude = magnitude
        self.rows, self.columns = base.rows, base.columns

    @cached_property
    def _right(self) -> NDArray[numpy.float64]:
        return self._right_view.read_rows(0, self._right_view.rows).astype(numpy.float64)

    def values(self, index: NDArray[numpy.intp]) -> NDArray[numpy.float32]:
        values = decode(self._base.stored, self._base.gather(index), self.columns, None)
        left = decode(self._left.stored, self._left.gather(index), self._left.columns, None)
        self._add(values, left.astype(numpy.float64), index)
        return values

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        values = self._base.read_rows(start, stop, out)
        left = self._left.read_rows(start, stop).astype(numpy.float64)
        self._add(values, left, numpy.arange(start, stop))
        return values

    def _add(self, values: NDArray[numpy.float32], left: NDArray[numpy.float64], index: NDArray[numpy.intp]) -> None:
        step = max(1, _PIECE // max(1, self.columns))
        total = numpy.empty((step, self.columns), numpy.float64)
        product = numpy.empty_like(total)
        for start in range(0, len(values), step):
            piece = values[start : start + step]
            sums, products = total[: len(piece)], product[: len(piece)]
            sums[:] = 0
            for column, row in zip(left[start : start + step].T, self._right, strict=True):
                numpy.multiply(column[:, None], row, out=products)
                sums += products
            sums *= self._scale
            sums += piece
            if self._magnitude is not None:
                lengths = [math.sqrt(math.fsum(square)) for square in numpy.square(sums).tolist()]
                sums *= (self._magnitude[index[start : start + step]] / numpy.asarray(lengths))[:, None]
            piece[:] = sums


class Replaced(Computed):
    """``base`` with some of its rows replaced by those of ``rows``, whose places are ``places``."""

    def __init__(self, base: Reader, rows: Reader, places: NDArray[numpy.intp]) -> None:
        self._base, self._new = base, rows
        self.rows, self.columns = base.rows, base.columns
        self._source = numpy.full(base.rows, -1, numpy.intp)
        self._source[places] = numpy.arange(len(places))

    def values(self, index: NDArray[numpy.intp]) -> NDArray[numpy.float32]:
        values = decode(self._base.stored, self._base.gather(index), self.columns, None)
        source = self._source[index]
        if (source >= 0).any():
            new = decode(self._new.stored, self._new.gather(source[source >= 0]), self.columns, None)
            values[source >= 0] = new
        return values
