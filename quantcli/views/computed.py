"""Views that hold other numbers than the file: decoded, changed, computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
from numpy.typing import NDArray

from quantcli.ggml.tensor_types import BY_NAME
from quantcli.views.reader import Reader, cut_columns, decode


class Decoded(Reader):
    """The values of ``source`` as float32, whatever they are stored as."""

    raw = False

    def __init__(self, source: Reader) -> None:
        self._source = source
        self.rows, self.columns, self.stored = source.rows, source.columns, BY_NAME["F32"]

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        return self._source.read_rows(start, stop, out)

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        values = decode(self._source.stored, self._source.gather(index), self.columns, None)
        return cut_columns(values.view(numpy.uint8), self.stored, columns)


class Mapped(Reader):
    """``function`` applied to the float32 values of ``source``, in place."""

    raw = False

    def __init__(self, source: Reader, function: Callable[[NDArray[numpy.float32]], None]) -> None:
        self._source, self._function = source, function
        self.rows, self.columns, self.stored = source.rows, source.columns, source.stored

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        values = self._source.read_rows(start, stop, out)
        self._function(values)
        return values

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        raise NotImplementedError("changed values are read by rows: put this view last")


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
