"""Views that hold other numbers than the file: decoded, changed, computed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy
from numpy.typing import NDArray

from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.views.reader import Reader, cut_columns, decode


class Computed(Reader):
    """Rows of float32 that are in no file so: a subclass gives ``values``. What formats that have to be decoded are."""

    raw = False
    stored = BY_NAME["F32"]

    @abstractmethod
    def values(self, index: NDArray[numpy.intp]) -> NDArray[numpy.float32]:
        """The rows ``index``, float32 [len(index), columns], C-contiguous."""

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        return cut_columns(self.values(index).view(numpy.uint8), self.stored, columns)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        values = self.values(numpy.arange(start, stop))
        if out is None:
            return values
        out[:] = values
        return out


class Decoded(Computed):
    """The values of ``source`` as float32, whatever they are stored as."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self.rows, self.columns = source.rows, source.columns

    def values(self, index: NDArray[numpy.intp]) -> NDArray[numpy.float32]:
        return decode(self._source.stored, self._source.gather(index), self.columns, None)

    def soon(self, start: int, stop: int) -> None:
        self._source.soon(start, stop)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        return self._source.read_rows(start, stop, out)


class Mapped(Reader):
    """``function`` applied to the float32 values of ``source``, in place."""

    raw = False

    def __init__(self, source: Reader, function: Callable[[NDArray[numpy.float32]], None]) -> None:
        self._source, self._function = source, function
        self.rows, self.columns, self.stored = source.rows, source.columns, source.stored

    def soon(self, start: int, stop: int) -> None:
        self._source.soon(start, stop)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        values = self._source.read_rows(start, stop, out)
        self._function(values)
        return values

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        raise NotImplementedError("changed values are read by rows: put this view last")


class ColumnNormed(Computed):
    """``source`` with each column divided by its Euclidean length plus ``offset``; read once before the first row."""

    def __init__(self, source: Reader, offset: float) -> None:
        self._source, self._offset = source, offset
        self.rows, self.columns = source.rows, source.columns

    @cached_property
    def _lengths(self) -> NDArray[numpy.float32]:
        total, step = numpy.zeros(self.columns), max(1, (1 << 22) // self.columns)
        for start in range(0, self.rows, step):
            part = self._source.read_rows(start, min(start + step, self.rows)).astype(numpy.float64)
            total += numpy.einsum("ij,ij->j", part, part)
        return (numpy.sqrt(total) + self._offset).astype(numpy.float32)

    def values(self, index: NDArray[numpy.intp]) -> NDArray[numpy.float32]:
        return decode(self._source.stored, self._source.gather(index), self.columns, None) / self._lengths


class Zeros(Reader):
    """Rows of zeros, whose stored bytes are zero in every float type."""

    def __init__(self, rows: int, columns: int, stored: TensorType) -> None:
        self.rows, self.columns, self.stored = rows, columns, stored

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        return cut_columns(numpy.zeros((len(index), self.row_bytes), numpy.uint8), self.stored, columns)


class Generated(Reader):
    """Values made from config.json: one float32 row that is held in memory."""

    def __init__(self, values: Sequence[float]) -> None:
        self._values = numpy.asarray(values, numpy.float32).reshape(1, -1)
        self.rows, self.columns, self.stored = 1, self._values.shape[1], BY_NAME["F32"]

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        return cut_columns(self._values.view(numpy.uint8)[index], self.stored, columns)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        if out is None:
            return self._values[start:stop].copy()
        out[:] = self._values[start:stop]
        return out
