"""Views that move rows: another order, a range, several tensors below one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.views.reader import Reader, decode


class Strided(Reader):
    """Rows of ``source`` in the order of a strided grid, as numpy strides elements.

    Output row i, written in mixed radix over ``dims``, is source row ``offset + sum(digit * stride)``. Permuted
    heads, splits, cuts, every second row and regrouped q/k/v are all of this form.
    """

    def __init__(self, source: Reader, dims: Sequence[int], strides: Sequence[int], offset: int = 0) -> None:
        self._source, self._dims, self._strides, self._offset = source, tuple(dims), tuple(strides), offset
        self.stored, self.columns, self.rows, self.raw = source.stored, source.columns, math.prod(dims), source.raw

    def _source_rows(self, index: NDArray[numpy.intp]) -> NDArray[numpy.intp]:
        found = numpy.full(len(index), self._offset, numpy.intp)
        for size, stride in zip(reversed(self._dims), reversed(self._strides), strict=True):
            index, digit = numpy.divmod(index, size)
            found += digit * stride
        return found

    def soon(self, start: int, stop: int) -> None:
        rows = self._source_rows(numpy.arange(start, stop))
        low, high = int(rows.min()), int(rows.max()) + 1
        if high - low <= 2 * (stop - start):  # rows that change places with their neighbours
            self._source.soon(low, high)

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        return self._source.gather(self._source_rows(index), columns)


class Span(Strided):
    """Consecutive rows ``start`` to ``stop`` of ``source``: a split that needs no gathering."""

    def __init__(self, source: Reader, start: int, stop: int) -> None:
        super().__init__(source, (stop - start,), (1,), start)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        return self._source.read_rows(self._offset + start, self._offset + stop, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        return self._source.read_raw(self._offset + start, self._offset + stop)


class Stacked(Reader):
    """The rows of several readers one after another: experts, or q, k and v joined. All have the same columns.

    Where they are not stored alike (some experts are packed, others not), the rows are float32.
    """

    def __init__(self, parts: Sequence[Reader]) -> None:
        self._parts = tuple(parts)
        self._alike = all(part.stored is parts[0].stored for part in parts)
        self.stored, self.columns = parts[0].stored if self._alike else BY_NAME["F32"], parts[0].columns
        self._starts = numpy.cumsum([0, *(part.rows for part in parts)], dtype=numpy.intp)
        self.rows = int(self._starts[-1])
        self.raw = self._alike and all(part.raw for part in parts)

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[Reader, int, int]]:
        """(part, first row, row behind the last) of every part that has some of the rows ``start`` to ``stop``."""
        first = int(numpy.searchsorted(self._starts, start, "right")) - 1
        for number in range(first, len(self._parts)):
            base = int(self._starts[number])
            if base >= stop:
                return
            low, high = max(start, base), min(stop, int(self._starts[number + 1]))
            if low < high:
                yield self._parts[number], low - base, high - base

    def soon(self, start: int, stop: int) -> None:
        for part, low, high in self._overlaps(start, stop):
            part.soon(low, high)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        if out is None:
            out = numpy.empty((stop - start, self.columns), numpy.float32)
        done = 0
        for part, low, high in self._overlaps(start, stop):
            part.read_rows(low, high, out[done : done + high - low])
            done += high - low
        return out

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        pieces = [part.read_raw(low, high) for part, low, high in self._overlaps(start, stop)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        owner = numpy.searchsorted(self._starts, index, "right") - 1
        width = self.columns if columns is None else columns.stop - columns.start
        out = numpy.empty((len(index), tensor_types.row_bytes(self.stored, width)), numpy.uint8)
        for number in numpy.unique(owner).tolist():
            mine = owner == number
            part = self._parts[number]
            rows = part.gather(index[mine] - self._starts[number], columns)
            out[mine] = rows if self._alike else decode(part.stored, rows, width, None).view(numpy.uint8)
        return out
