"""A tensor as it lies in its file: where every view ends."""

from __future__ import annotations

from typing import Protocol

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.views.reader import Reader, cut_columns

_GAP_BYTES = 64 * 1024  # rows closer together than this are read in one piece and picked afterwards


class ByteTensor(Protocol):
    """What a stored tensor has to offer: [``rows``, ``columns``] elements that are read by byte range or by rows."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def read_bytes(self, start: int, stop: int, out: memoryview | None = None) -> bytes | memoryview:
        """Bytes ``start`` to ``stop`` of the tensor, into ``out`` if given."""
        ...

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32, into ``out`` if given."""
        ...

    def soon_bytes(self, start: int, stop: int) -> None:
        """These bytes will be read."""
        ...


class Stored(Reader):
    """A source tensor as it lies in its file, as elements of the type ``stored``."""

    def __init__(self, tensor: ByteTensor, stored: TensorType) -> None:
        self._tensor = tensor
        self.rows, self.columns, self.stored = tensor.rows, tensor.columns, stored

    def soon(self, start: int, stop: int) -> None:
        self._tensor.soon_bytes(start * self.row_bytes, stop * self.row_bytes)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        return self._tensor.read_rows(start, stop, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        return self._tensor.read_bytes(start * self.row_bytes, stop * self.row_bytes)

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        if not len(index):
            return numpy.empty((0, self.row_bytes), numpy.uint8)
        wanted, back = numpy.unique(index, return_inverse=True)
        if columns is None or 4 * (columns.stop - columns.start) >= self.columns:
            return cut_columns(self._runs(wanted), self.stored, columns)[back]
        return self._pieces(wanted, columns)[back]

    def _runs(self, wanted: NDArray[numpy.intp]) -> NDArray[numpy.uint8]:
        """The ascending rows ``wanted``, near ones read together."""
        gap = max(1, _GAP_BYTES // max(1, self.row_bytes))
        blocks = []
        for run in numpy.split(wanted, numpy.flatnonzero(numpy.diff(wanted) > gap) + 1):
            low, high = int(run[0]), int(run[-1]) + 1
            block = numpy.frombuffer(self.read_raw(low, high), numpy.uint8).reshape(high - low, self.row_bytes)
            blocks.append(block if len(run) == high - low else block[run - low])
        return blocks[0] if len(blocks) == 1 else numpy.concatenate(blocks)

    def _pieces(self, wanted: NDArray[numpy.intp], columns: slice) -> NDArray[numpy.uint8]:
        """A narrow band of columns: one read per row, so that a transpose does not read the matrix once per slab."""
        left = tensor_types.row_bytes(self.stored, columns.start)
        right = tensor_types.row_bytes(self.stored, columns.stop)
        out = numpy.empty((len(wanted), right - left), numpy.uint8)
        flat, width = out.data.cast("B"), right - left
        for i, row in enumerate(wanted.tolist()):
            base = row * self.row_bytes
            self._tensor.read_bytes(base + left, base + right, flat[i * width : (i + 1) * width])
        return out
