"""Lazy views of source tensors: everything a transform can do to rows without reading a whole tensor.

Every reader shows ``rows`` x ``columns`` elements of one stored type and answers

- ``read_rows(start, stop, out)``: these rows as float32,
- ``read_raw(start, stop)``: their stored bytes (only where ``raw`` is true),
- ``gather(index, columns)``: the stored bytes of any rows in any order, uint8 [len(index), bytes], optionally only
  of the elements ``columns.start`` to ``columns.stop``: what the views are built from.

Readers hold no state and may be used from several threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy

from quantcli.ggml import tensor_types

if TYPE_CHECKING:
    from quantcli.ggml.tensor_types import TensorType

_GAP_BYTES = 64 * 1024  # rows closer together than this are read in one piece and picked afterwards
_BY_DTYPE = {"F64": "F64", "F32": "F32", "F16": "F16", "BF16": "BF16", "U8": "I8"}  # U8: packed codes, moved only


def stored_type(dtype: str) -> TensorType | None:
    """The tensor type of a safetensors ``dtype``; None where quantcli has no use for it."""
    name = _BY_DTYPE.get(dtype)
    return tensor_types.BY_NAME[name] if name else None


def _decode(stored: TensorType, raw: numpy.ndarray, columns: int, out: numpy.ndarray | None) -> numpy.ndarray:
    from quantcli.ggml import kernels

    return kernels.decode(stored.id, raw, len(raw), columns, out=out)


class Reader:
    """Base: rows and bytes through ``gather``; subclasses read faster where they can."""

    rows: int
    columns: int
    stored: TensorType
    raw = True

    @property
    def row_bytes(self) -> int:
        return tensor_types.row_bytes(self.stored, self.columns)

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        raise NotImplementedError

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        return _decode(self.stored, self.gather(numpy.arange(start, stop)), self.columns, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        return memoryview(numpy.ascontiguousarray(self.gather(numpy.arange(start, stop)))).cast("B")


class Stored(Reader):
    """A source tensor as it lies in its file: [product of the leading dimensions, last dimension]."""

    def __init__(self, tensor) -> None:
        self.tensor = tensor
        self.stored = stored_type(tensor.dtype)
        self.columns = tensor.shape[-1] if tensor.shape else 1
        self.rows = math.prod(tensor.shape[:-1])

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        return self.tensor.read_rows(start, stop, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        return self.tensor.read_bytes(start * self.row_bytes, stop * self.row_bytes)

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        if not len(index):
            return numpy.empty((0, self.row_bytes), numpy.uint8)
        wanted, back = numpy.unique(index, return_inverse=True)
        if columns is None or 4 * (columns.stop - columns.start) >= self.columns:
            return _cut(self._runs(wanted), self.stored, columns)[back]
        return self._pieces(wanted, columns)[back]

    def _runs(self, wanted: numpy.ndarray) -> numpy.ndarray:
        """The ascending rows ``wanted``, near ones read together."""
        gap = max(1, _GAP_BYTES // max(1, self.row_bytes))
        blocks = []
        for run in numpy.split(wanted, numpy.flatnonzero(numpy.diff(wanted) > gap) + 1):
            low, high = int(run[0]), int(run[-1]) + 1
            block = numpy.frombuffer(self.read_raw(low, high), numpy.uint8).reshape(high - low, self.row_bytes)
            blocks.append(block if len(run) == high - low else block[run - low])
        return blocks[0] if len(blocks) == 1 else numpy.concatenate(blocks)

    def _pieces(self, wanted: numpy.ndarray, columns: slice) -> numpy.ndarray:
        """A narrow band of columns: one read per row, so that a transpose does not read the matrix once per slab."""
        left = tensor_types.row_bytes(self.stored, columns.start)
        right = tensor_types.row_bytes(self.stored, columns.stop)
        out = numpy.empty((len(wanted), right - left), numpy.uint8)
        flat, width = memoryview(out).cast("B"), right - left
        for i, row in enumerate(wanted.tolist()):
            base = row * self.row_bytes
            self.tensor.read_bytes(base + left, base + right, flat[i * width : (i + 1) * width])
        return out


class Strided(Reader):
    """Rows of ``source`` in the order of a strided grid, as numpy strides elements.

    Output row i, written in mixed radix over ``dims``, is source row ``offset + sum(digit * stride)``. Permuted
    heads, splits, cuts, every second row and regrouped q/k/v are all of this form.
    """

    def __init__(self, source: Reader, dims: Sequence[int], strides: Sequence[int], offset: int = 0) -> None:
        self.source, self.dims, self.strides, self.offset = source, tuple(dims), tuple(strides), offset
        self.stored, self.columns, self.rows = source.stored, source.columns, math.prod(dims)

    def _source_rows(self, index: numpy.ndarray) -> numpy.ndarray:
        found = numpy.full(len(index), self.offset, numpy.int64)
        for size, stride in zip(reversed(self.dims), reversed(self.strides), strict=True):
            index, digit = numpy.divmod(index, size)
            found += digit * stride
        return found

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        return self.source.gather(self._source_rows(index), columns)


class Span(Strided):
    """Consecutive rows ``start`` to ``stop`` of ``source``: a split that needs no gathering."""

    def __init__(self, source: Reader, start: int, stop: int) -> None:
        super().__init__(source, (stop - start,), (1,), start)

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        return self.source.read_rows(self.offset + start, self.offset + stop, out)

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        return self.source.read_raw(self.offset + start, self.offset + stop)


class Stacked(Reader):
    """The rows of several readers one after another: experts, or q, k and v joined. All have the same columns."""

    def __init__(self, parts: Sequence[Reader]) -> None:
        self.parts = tuple(parts)
        self.stored, self.columns = parts[0].stored, parts[0].columns
        self.starts = numpy.concatenate([[0], numpy.cumsum([part.rows for part in parts])])
        self.rows = int(self.starts[-1])
        self.raw = all(part.raw and part.stored is self.stored for part in parts)

    def _overlaps(self, start: int, stop: int):
        first = int(numpy.searchsorted(self.starts, start, "right")) - 1
        for number in range(first, len(self.parts)):
            base = int(self.starts[number])
            if base >= stop:
                return
            low, high = max(start, base), min(stop, int(self.starts[number + 1]))
            if low < high:
                yield self.parts[number], low - base, high - base

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
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

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        owner = numpy.searchsorted(self.starts, index, "right") - 1
        width = self.columns if columns is None else columns.stop - columns.start
        out = numpy.empty((len(index), tensor_types.row_bytes(self.stored, width)), numpy.uint8)
        for number in numpy.unique(owner).tolist():
            mine = owner == number
            out[mine] = self.parts[number].gather(index[mine] - self.starts[number], columns)
        return out


class Reshaped(Reader):
    """The same elements in rows of ``columns``: a vector as n rows of one, and back."""

    def __init__(self, source: Reader, columns: int) -> None:
        self.source, self.columns, self.stored = source, columns, source.stored
        self.rows = source.rows * source.columns // columns
        self.item = tensor_types.row_bytes(source.stored, 1)

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        if self.columns % self.source.columns == 0:  # whole rows joined
            count = self.columns // self.source.columns
            rows = (index[:, None] * count + numpy.arange(count)).ravel()
            return _cut(self.source.gather(rows).reshape(len(index), -1), self.stored, columns)
        first = index * self.columns  # flat position of each row's first element
        flat = (first[:, None] + numpy.arange(self.columns)).ravel()
        rows, within = numpy.divmod(flat, self.source.columns)
        need, back = numpy.unique(rows, return_inverse=True)
        block = self.source.gather(need).reshape(len(need), self.source.columns, self.item)
        picked = block[back, within].reshape(len(index), self.columns * self.item)
        return _cut(picked, self.stored, columns)


class Transposed(Reader):
    """Each of ``count`` matrices [height, width] of ``source`` as [width, height], read by column slab."""

    def __init__(self, source: Reader, count: int = 1) -> None:
        self.source, self.stored = source, source.stored
        self.columns, self.width = source.rows // count, source.columns
        self.rows = count * self.width
        self.item = tensor_types.row_bytes(source.stored, 1)

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        span = columns or slice(0, self.columns)
        matrix, column = numpy.divmod(index, self.width)
        kind = numpy.dtype(f"u{self.item}")
        out = numpy.empty((len(index), span.stop - span.start), kind)
        for number in numpy.unique(matrix).tolist():
            mine = numpy.flatnonzero(matrix == number)
            left, right = int(column[mine].min()), int(column[mine].max()) + 1
            rows = number * self.columns + numpy.arange(span.start, span.stop)
            band = numpy.ascontiguousarray(self.source.gather(rows, slice(left, right))).view(kind)
            out[mine] = band.T[column[mine] - left]
        return out.view(numpy.uint8)


class Mapped(Reader):
    """``function`` applied to the float32 values of ``source``, in place."""

    raw = False

    def __init__(self, source: Reader, function: Callable[[numpy.ndarray], None]) -> None:
        self.source, self.function = source, function
        self.rows, self.columns, self.stored = source.rows, source.columns, source.stored

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        values = self.source.read_rows(start, stop, out)
        self.function(values)
        return values


class Generated(Reader):
    """Values made from config.json: one float32 row that is held in memory."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = numpy.asarray(values, numpy.float32).reshape(1, -1)
        self.rows, self.columns, self.stored = 1, self.values.shape[1], tensor_types.BY_NAME["F32"]

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        return _cut(self.values.view(numpy.uint8)[index], self.stored, columns)

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        if out is None:
            return self.values[start:stop].copy()
        out[:] = self.values[start:stop]
        return out


class Repacked(Reader):
    """Checkpoint MXFP4 (codes [rows, groups, 16], scales [rows, groups]) as GGUF's MXFP4 blocks of 17 bytes.

    A source byte b of a group holds values 2b (low nibble) and 2b+1; a GGUF byte j holds values j and j + 16.
    """

    def __init__(self, codes: Reader, scales: Reader) -> None:
        self.groups = scales.columns
        self.codes, self.scales = Reshaped(codes, self.groups * 16), scales
        self.rows, self.columns, self.stored = scales.rows, self.groups * 32, tensor_types.BY_NAME["MXFP4"]

    def gather(self, index: numpy.ndarray, columns: slice | None = None) -> numpy.ndarray:
        codes = self.codes.gather(index).reshape(len(index), self.groups, 16)
        values = numpy.stack([codes & 15, codes >> 4], axis=-1).reshape(len(index), self.groups, 32)
        blocks = numpy.empty((len(index), self.groups, 17), numpy.uint8)
        blocks[..., 0] = self.scales.gather(index)
        blocks[..., 1:] = values[..., :16] | values[..., 16:] << 4
        return blocks.reshape(len(index), -1)


def _cut(raw: numpy.ndarray, stored: TensorType, columns: slice | None) -> numpy.ndarray:
    if columns is None:
        return raw
    return raw[:, tensor_types.row_bytes(stored, columns.start) : tensor_types.row_bytes(stored, columns.stop)]
