"""Views of packed weights: codes row after row with their scales, and codes that lie along columns."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.errors import ShapeMismatch
from quantcli.ggml import packing
from quantcli.ggml.packing import Packing
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.sources.files import StoredTensor, scratch
from quantcli.sources.packed.scales import Floats, Indices
from quantcli.views import Computed, Stored

Bytes: TypeAlias = NDArray[numpy.uint8]
Numbers: TypeAlias = Callable[[Indices], Floats]  # of these rows: float32 [rows, groups]

BAND_BYTES = 4 << 20  # of codes that are turned at a time
_KEPT_BANDS = 6  # of all tensors together: slabs come in order, a few threads apart


@dataclass(frozen=True, slots=True)
class ByteRows:
    """The bytes of a tensor, whatever its dtype and shape, as ``rows`` of ``columns`` bytes. A `views.ByteTensor`."""

    part: StoredTensor
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.part.nbytes != self.rows * self.columns:
            raise ShapeMismatch(
                f"has {self.part.nbytes} bytes of codes, the weights ask for {self.rows * self.columns}",
                where=self.part.where,
                hint="config.json does not belong to these weights, or they are damaged",
            )

    def read_bytes(self, start: int, stop: int, out: memoryview | None = None) -> bytes | memoryview:
        return self.part.read_bytes(start, stop, out)

    def soon_bytes(self, start: int, stop: int) -> None:
        self.part.soon_bytes(start, stop)

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        raise NotImplementedError("codes are no weights")

    def view(self) -> Stored:
        """The lazy view: what gathers rows in any order."""
        return Stored(self, BY_NAME["I8"])


@dataclass(frozen=True, slots=True)
class Codes:
    """How a tensor holds codes: row after row, ``row_bytes`` each (0: as many as ``columns`` codes need)."""

    part: StoredTensor
    packing: Packing
    rows: int
    columns: int
    row_bytes: int = 0

    def bytes(self) -> ByteRows:
        """The rows as bytes. Raises ShapeMismatch where the tensor has another size."""
        return ByteRows(self.part, self.rows, self.row_bytes or self.packing.row_bytes(self.columns))


class Scaled(Computed):
    """Codes row after row: (code - zero) * scale, or level * scale, in float32."""

    def __init__(
        self,
        codes: Codes,
        scale: Numbers,
        *,
        group: int = 0,
        zero: Numbers | None = None,
        levels: Floats | None = None,
        index: NDArray[numpy.int32] | None = None,
    ) -> None:
        """``group``: columns under one scale, 0: all; or ``index``, the scale of each column. Raises ShapeMismatch."""
        self.rows, self.columns = codes.rows, codes.columns
        self._bytes, self._packing = codes.bytes(), codes.packing
        self._scale, self._zero, self._group = scale, zero, group
        self._levels, self._index = levels, index
        bits = codes.packing.bits  # rows end with whole bytes
        self._padded = -(-codes.columns * bits // 8) * 8 // bits
        self._cut = self._packing.row_bytes(self._padded)

    def values(self, index: Indices) -> Floats:
        return self._decoded(self._bytes.view().gather(index), self._numbers(index), None)

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        numbers, width = self._numbers(numpy.arange(start, stop)), self._bytes.columns
        raw = scratch((stop - start) * width)
        self._bytes.read_bytes(start * width, stop * width, raw.data)
        return self._decoded(raw.reshape(stop - start, width), numbers, out)

    def _numbers(self, index: Indices) -> tuple[Floats, Floats | None]:
        """Scale and zero of these rows."""
        return self._scale(index), None if self._zero is None else self._zero(index)

    def _decoded(self, raw: Bytes, numbers: tuple[Floats, Floats | None], out: Floats | None) -> Floats:
        scale, zero = numbers
        if raw.shape[1] != self._cut:
            raw = numpy.ascontiguousarray(raw[:, : self._cut])
        exact = self._padded == self.columns
        if not exact and self._index is None and self._group:  # the padding may begin a group of its own
            scale = numpy.pad(scale, ((0, 0), (0, 1)), "edge")
            zero = None if zero is None else numpy.pad(zero, ((0, 0), (0, 1)), "edge")
        column_group = self._index if exact or self._index is None else numpy.pad(self._index, (0, 8), "edge")
        found = packing.unpack(
            self._packing,
            raw,
            self._padded,
            scale,
            group=self._group,
            zero=zero,
            levels=self._levels,
            index=column_group,
            out=out if exact else None,
        )
        if exact:
            return found
        if out is None:
            return numpy.ascontiguousarray(found[:, : self.columns])
        out[:] = found[:, : self.columns]
        return out


@dataclass(frozen=True, slots=True)
class Band:
    """Some rows of a turned packing: codes uint8 [rows, bytes], scale and zero float32 [rows, groups]."""

    codes: Bytes
    scale: Floats
    zero: Floats | None


class Turned(Computed):
    """Codes that are packed along columns: bands of columns become rows, and the last few bands are kept.

    A subclass reads a band: ``band(start, stop)`` are the rows ``start`` to ``stop`` of the result.
    """

    packing: Packing
    group: int
    index: NDArray[numpy.int32] | None = None

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        fitting = BAND_BYTES // max(self.packing.row_bytes(columns), 1)
        self._height = max(fitting // 64, 1) * 64  # whole words of every part
        self._lock = threading.Lock()

    @abstractmethod
    def band(self, start: int, stop: int) -> Band:
        """Rows ``start`` to ``stop``, turned."""

    def values(self, index: Indices) -> Floats:
        return self._decoded(index, numpy.empty((len(index), self.columns), numpy.float32))

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        if out is None:
            out = numpy.empty((stop - start, self.columns), numpy.float32)
        return self._decoded(numpy.arange(start, stop), out)

    def _decoded(self, index: Indices, out: Floats) -> Floats:
        owner = index // self._height
        for number in numpy.unique(owner).tolist():
            mine = numpy.flatnonzero(owner == number)
            band, rows = self._band(number), index[mine] - number * self._height
            straight = len(mine) == len(index) or bool((numpy.diff(mine) == 1).all())
            target = out[mine[0] : mine[-1] + 1] if straight else None
            found = packing.unpack(
                self.packing,
                band.codes[rows],
                self.columns,
                band.scale[rows],
                group=self.group,
                zero=None if band.zero is None else band.zero[rows],
                index=self.index,
                out=target,
            )
            if target is None:
                out[mine] = found
        return out

    def _band(self, number: int) -> Band:
        start = number * self._height
        with self._lock:
            found = _kept.get((self, number))
            if found is None:
                found = self.band(start, min(start + self._height, self.rows))
                _kept.put((self, number), found)
        return found


class _Kept:
    """The bands that were used last, of all tensors. Thread-safe."""

    def __init__(self) -> None:
        self._bands: OrderedDict[tuple[Turned, int], Band] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Turned, int]) -> Band | None:
        with self._lock:
            found = self._bands.get(key)
            if found is not None:
                self._bands.move_to_end(key)
            return found

    def put(self, key: tuple[Turned, int], band: Band) -> None:
        with self._lock:
            self._bands[key] = band
            while len(self._bands) > _KEPT_BANDS:
                self._bands.popitem(last=False)


_kept = _Kept()
