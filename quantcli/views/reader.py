"""What every view answers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType


class Reader(ABC):
    """``rows`` x ``columns`` elements of the type ``stored``, read when asked for. A `model.RowReader`.

    - ``read_rows(start, stop, out)``: these rows as float32,
    - ``read_raw(start, stop)``: their stored bytes (only where ``raw`` is true),
    - ``gather(index, columns)``: the stored bytes of any rows in any order: what views are built from.

    A subclass gives ``gather`` and, where it can do better, the other two. Readers hold no state and may be used from
    several threads.
    """

    rows: int
    columns: int
    stored: TensorType
    raw = True  # the stored bytes are the rows unchanged

    @property
    def row_bytes(self) -> int:
        return tensor_types.row_bytes(self.stored, self.columns)

    def soon(self, start: int, stop: int) -> None:  # noqa: B027 - most have nothing to do
        """These rows will be read: a good moment to ask for them where they are far away. Others take no note."""

    @abstractmethod
    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        """Stored bytes of the rows ``index``: uint8 [len(index), bytes], of the elements ``columns`` if given."""

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32 [stop - start, columns], into ``out`` (C-contiguous) if given."""
        return decode(self.stored, self.gather(numpy.arange(start, stop)), self.columns, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        """The stored bytes of rows ``start`` to ``stop``."""
        return numpy.ascontiguousarray(self.gather(numpy.arange(start, stop))).data.cast("B")


def decode(
    stored: TensorType, raw: NDArray[numpy.uint8], columns: int, out: NDArray[numpy.float32] | None
) -> NDArray[numpy.float32]:
    """Rows of stored bytes [rows, bytes] as float32 [rows, columns]."""
    from quantcli.ggml import kernels  # headers can be looked at where the kernels are not built

    return kernels.decode(stored.id, raw, len(raw), columns, out=out)


def cut_columns(raw: NDArray[numpy.uint8], stored: TensorType, columns: slice | None) -> NDArray[numpy.uint8]:
    """The bytes of the elements ``columns`` of rows of stored bytes; all of them for None."""
    if columns is None:
        return raw
    return raw[:, tensor_types.row_bytes(stored, columns.start) : tensor_types.row_bytes(stored, columns.stop)]
