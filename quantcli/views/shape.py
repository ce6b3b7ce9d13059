"""Views that see the same elements in other rows: reshaped, transposed."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.views.computed import Decoded
from quantcli.views.reader import Reader, cut_columns


class Reshaped(Reader):
    """The same elements in rows of ``columns``: a vector as n rows of one, and back."""

    def __init__(self, source: Reader, columns: int) -> None:
        self._source, self.columns, self.stored, self.raw = source, columns, source.stored, source.raw
        self.rows = source.rows * source.columns // columns
        self._item = tensor_types.row_bytes(source.stored, 1)

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        source = self._source
        if self.columns % source.columns == 0:  # whole rows joined
            count = self.columns // source.columns
            rows = (index[:, None] * count + numpy.arange(count)).ravel()
            return cut_columns(source.gather(rows).reshape(len(index), -1), self.stored, columns)
        first = index * self.columns  # flat position of each row's first element
        flat = (first[:, None] + numpy.arange(self.columns)).ravel()
        rows, within = numpy.divmod(flat, source.columns)
        need, back = numpy.unique(rows, return_inverse=True)
        block = source.gather(need).reshape(len(need), source.columns, self._item)
        picked = block[back, within].reshape(len(index), self.columns * self._item)
        return cut_columns(picked, self.stored, columns)


class Transposed(Reader):
    """Each of ``count`` matrices [height, width] of ``source`` as [width, height], read by column slab.

    What is stored in blocks has no columns of its own: it is decoded, and the view has float32. `transpose` undoes a
    transposition, so that such blocks come through where two of them meet.
    """

    def __init__(self, source: Reader, count: int = 1) -> None:
        self.source, self.count = source, count
        self._items = source if source.stored.block == 1 else Decoded(source)
        self.stored, self.raw = self._items.stored, self._items.raw
        self.columns, self._width = source.rows // count, source.columns
        self.rows = count * self._width

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        span = columns or slice(0, self.columns)
        matrix, column = numpy.divmod(index, self._width)
        item = numpy.dtype(f"u{tensor_types.row_bytes(self.stored, 1)}")
        out = numpy.empty((len(index), span.stop - span.start), item)
        for number in numpy.unique(matrix).tolist():
            mine = numpy.flatnonzero(matrix == number)
            left, right = int(column[mine].min()), int(column[mine].max()) + 1
            rows = number * self.columns + numpy.arange(span.start, span.stop)
            band = numpy.ascontiguousarray(self._items.gather(rows, slice(left, right))).view(item)
            out[mine] = band.T[column[mine] - left]
        return out.view(numpy.uint8)


def transpose(source: Reader, count: int = 1) -> Reader:
    """Each of ``count`` matrices of ``source`` transposed; twice transposed is ``source`` itself."""
    if isinstance(source, Transposed) and source.count == count:
        return source.source
    return Transposed(source, count)
