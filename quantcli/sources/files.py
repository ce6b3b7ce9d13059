"""Files that are read by position: one descriptor per file, any number of threads, buffers that are used again.

Mapped pages would count as resident memory, so everything goes through ``pread``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import numpy
from numpy.typing import NDArray

from quantcli import places
from quantcli.container import foreign
from quantcli.errors import MalformedFile, UnsafePath, UnsupportedFile
from quantcli.ggml.tensor_types import BY_NAME, TensorType, row_bytes
from quantcli.sources.factors import NO_FACTORS, Factors
from quantcli.views import Stored

PIECE_BYTES = 4 << 20  # of stored bytes that are decoded at a time: bounds the scratch buffer of a thread
_thread = threading.local()


def scratch(size: int) -> NDArray[numpy.uint8]:
    """``size`` bytes (uint8) that belong to this thread until it asks again."""
    buffer: NDArray[numpy.uint8] | None = getattr(_thread, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = numpy.empty(size, numpy.uint8)
        if size <= PIECE_BYTES:
            _thread.buffer = buffer
    return buffer[:size]


def read_small(path: Path, limit: int) -> bytes:
    """A whole file of at most ``limit`` bytes.

    Raises MissingFile, UnsupportedFile, MalformedFile (too large), GitLfsPointer.
    """
    size = places.check_regular(path)
    if size > limit:
        raise MalformedFile(f"{size} bytes: more than the {limit} that such a file may have", where=str(path))
    with closing(places.open_bytes(path)) as file:
        buffer, done = bytearray(size), 0
        while done < size and (count := file.read_some(memoryview(buffer)[done:], done)):
            done += count
    data = bytes(buffer[:done])
    foreign.check_pointer(data[: foreign.BEGINNING], path)
    return data


def inside(folder: Path, name: str) -> Path:
    """``folder / name`` for a name found inside a file. Raises UnsafePath where it is absolute or climbs out.

    Symbolic links are followed as they are: in the Hugging Face cache every file is one, and they were made by the
    user's own tools, not by the checkpoint.
    """
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0] or not name.isprintable():
        raise UnsafePath(
            f"the file name {shown(name)} leaves the folder",
            where=str(folder),
            hint="file names in an index have to be relative and inside the checkpoint's folder",
        )
    return folder / name


def shown(name: str) -> str:
    """A name from a file for a message: quoted, ASCII, not too long."""
    text = ascii(name)
    return text if len(text) <= 100 else text[:100] + "..."


class SourceFile:
    """An open file. Threads may read from it at the same time; ``close`` ends that."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._bytes = places.open_bytes(self.path)
        self.size = self._bytes.size

    @property
    def identity(self) -> str:
        """What tells the file from another version of it, in words, also after a restart of the machine."""
        return self._bytes.identity

    def identities(self) -> dict[str, str]:
        """Its name and identity."""
        return {self.name: self.identity}

    def check_unchanged(self) -> None:
        """Raises SourceChanged where size, time of change, beginning or the file behind the name are other ones now,
        BadAnswer where a server sent something else than it announced."""
        self._bytes.check_unchanged()

    @property
    def name(self) -> str:
        return self.path.name

    def expect(self, starts: Iterable[int]) -> None:
        """The tensors of the file begin at these bytes: what is far away is asked for by tensors."""
        self._bytes.expect(sorted(starts))

    def soon(self, offset: int, count: int) -> None:
        """These bytes are read next, in pieces."""
        self._bytes.soon(offset, count)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` (bytes) from byte ``offset`` on. Raises MalformedFile where the file ends before."""
        self._bytes.soon(offset, len(buffer))
        done = 0
        while done < len(buffer):
            count = self._bytes.read_some(buffer[done:], offset + done)
            if not count:
                raise MalformedFile(
                    f"the file ends at byte {offset + done}, {len(buffer) - done} bytes too early",
                    where=str(self.path),
                    hint="it was cut while being read: get it again",
                )
            done += count

    def check_range(self, offset: int, count: int) -> None:
        """Raises MalformedFile where the file has no ``count`` bytes from ``offset`` on: before any are allocated."""
        if offset + count > self.size:
            raise MalformedFile(
                f"bytes {offset} to {offset + count} are beyond the end at {self.size}",
                where=str(self.path),
                hint="the file is truncated: get it again",
            )

    def read(self, offset: int, count: int) -> bytearray:
        """``count`` bytes from ``offset`` on. Raises MalformedFile."""
        self.check_range(offset, count)
        data = bytearray(count)
        self.read_into(memoryview(data), offset)
        return data

    def close(self) -> None:
        self._bytes.close()

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True, eq=False, repr=False)
class StoredTensor:
    """A tensor as it lies in a file: ``nbytes`` bytes from ``offset`` on, seen as ``rows`` x ``columns`` elements.

    ``shape`` is in the file's own order (torch order in safetensors, columns first in GGUF). ``type`` is None for
    a dtype that has no ggml type; such a tensor can only be read as bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    type: TensorType | None
    file: SourceFile
    offset: int
    nbytes: int
    rows: int
    columns: int

    @property
    def origin(self) -> str:
        return f"{self.file.name}: {self.name}"

    @property
    def where(self) -> str:
        return f"{self.file.path}: tensor {self.name}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; 0 for a tensor without elements."""
        return self.nbytes // self.rows if self.rows else 0

    def read_bytes(self, start: int, stop: int, out: memoryview | None = None) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor, into ``out`` if given."""
        if not 0 <= start <= stop <= self.nbytes:
            raise IndexError(f"{self.where}: bytes {start} to {stop} of {self.nbytes}")
        if out is None:
            self.file.check_range(self.offset + start, stop - start)
            out = numpy.empty(stop - start, numpy.uint8).data  # not zeroed: it is filled
        self.file.read_into(out[: stop - start], self.offset + start)
        return out[: stop - start]

    def soon(self, start: int, stop: int) -> None:
        """Rows ``start`` to ``stop`` will be read: see `SourceFile.soon`."""
        self.soon_bytes(start * self.row_bytes, stop * self.row_bytes)

    def soon_bytes(self, start: int, stop: int) -> None:
        """Bytes ``start`` to ``stop`` will be read."""
        self.file.soon(self.offset + start, stop - start)

    def reader(self) -> Stored:
        """The lazy view of all rows. A dtype that is no weight is seen as bytes: packed codes are only moved."""
        return Stored(self, self.type or BY_NAME["I8"])

    @property
    def exact(self) -> None:
        """What is stored is what is meant."""

    @property
    def factors(self) -> Factors:
        """It needs none beside it."""
        return NO_FACTORS

    def read_raw(self, start: int, stop: int) -> memoryview:
        """The stored bytes of rows ``start`` to ``stop``."""
        return self.read_bytes(start * self.row_bytes, stop * self.row_bytes)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32 (stop - start, columns), into ``out`` (C-contiguous) if given."""
        if not 0 <= start <= stop <= self.rows:
            raise IndexError(f"{self.where}: rows {start} to {stop} of {self.rows}")
        tensor_type = self.type
        if tensor_type is None or tensor_type.kind == "integer":
            raise UnsupportedFile(
                f"stores {self.dtype}, which cannot be read as weights", where=self.where, hint=_HINTS.get(self.dtype)
            )
        if self.offset + stop * self.row_bytes > self.file.size:
            raise MalformedFile(
                f"ends at byte {self.offset + self.nbytes}, the file at {self.file.size}", where=self.where
            )
        if out is None:
            out = numpy.empty((stop - start, self.columns), numpy.float32)
        elif out.shape != (stop - start, self.columns) or out.dtype != numpy.float32 or not out.flags.c_contiguous:
            raise ValueError(f"{self.where}: out has to be contiguous float32 ({stop - start}, {self.columns})")
        self._decode(tensor_type, start * self.columns, out.reshape(-1))
        return out

    def _decode(self, tensor_type: TensorType, first: int, out: NDArray[numpy.float32]) -> None:
        """Elements from ``first`` on into flat ``out``; blocks never straddle rows, so rows need no care here."""
        begin = self.offset + first // tensor_type.block * tensor_type.bytes
        if tensor_type.name == "F32":
            self.file.read_into(out.data.cast("B"), begin)
            return
        from quantcli.ggml import kernels  # headers can be looked at where the kernels are not built

        step = PIECE_BYTES // tensor_type.bytes * tensor_type.block
        self.file.soon(begin, row_bytes(tensor_type, len(out)))
        for done in range(0, len(out), step):
            piece = out[done : done + step]
            raw = scratch(row_bytes(tensor_type, len(piece)))
            self.file.read_into(raw.data, begin + done // tensor_type.block * tensor_type.bytes)
            kernels.decode(tensor_type.id, raw, 1, len(piece), out=piece.reshape(1, -1))


_HINTS = dict.fromkeys(
    ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    "8-bit floats are read with the scales and the quantization_config that they came with; or take the BF16 version",
)


def rows_and_columns(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of a torch-order ``shape``: [product of the leading dimensions, last dimension]."""
    return (prod(shape[:-1]), shape[-1]) if shape else (1, 1)
