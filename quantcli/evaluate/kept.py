"""Files that comparisons keep of a reference for the next time: GGUF containers with checksums (container/sums.py).

What is damaged or of something else is refused, with what makes it again: no figure comes from it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy

from quantcli import container
from quantcli.container import Value, sums
from quantcli.errors import BadReference, QuantcliError
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.output import writer
from quantcli.sources.files import SourceFile

KINDS = {sums.CACHE: "--reference-cache", sums.STATES: "--reference-states"}
WHAT = {sums.CACHE: "predictions", sums.STATES: "states"}  # that it holds of a reference
DTYPES = {"I32": "<i4", "F32": "<f4"}
BEGINNING = 256  # bytes that tell which kind it is

Tensor = tuple[str, Sequence[int], str]  # name, shape (columns first), type


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """Which of the `KINDS` the file is; None for others."""
    try:
        kind = container.read_header(path).metadata.get("general.type")
    except (QuantcliError, OSError):
        return None
    return kind.data if kind is not None and isinstance(kind.data, str) and kind.data in KINDS else None


def hint(path: Path, kind: str) -> str:
    """What helps where a file of the kind cannot be used; nobody is told to remove a file of something else."""
    other = f"name another file with {KINDS[kind]}"
    if not _is_made(path, kind):
        return other
    return f"make it again, the same command after: rm {shlex.quote(str(path))}; or {other}"


def _is_made(path: Path, kind: str) -> bool:
    """Whether it is, or was begun as, a file of the kind: its name stands in front of all other metadata."""
    try:
        with open(path, "rb") as file:
            first = file.read(BEGINNING)
    except OSError:
        return False
    return not first or len(kind).to_bytes(8, "little") + kind.encode() in first  # as the container stores a text


class KeptWriter:
    """Such a file in the making: `add` takes the arrays in order, `finish` gives it its name."""

    def __init__(self, path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
        """Raises OutputFailed where there is no room for it."""
        rows = [(name, tuple(shape), BY_NAME[kind].id) for name, shape, kind in tensors]
        rows.append((sums.NAME, sums.shape(len(rows)), sums.TYPE))
        offsets, size = container.place_tensors([(shape, kind) for _, shape, kind in rows])
        placed = [(*row, offset) for row, offset in zip(rows, offsets, strict=True)]
        header = container.encode_header(metadata, placed)
        self._sums = sums.Sums()
        self.output = writer.OutputFile(path, len(header) + size, force=True)
        self._append(header)

    def _append(self, data: bytes) -> None:
        self._sums.add(data)
        self.output.append(data)

    def add(self, array: numpy.ndarray) -> None:
        """The next tensor, int32 or float32."""
        data = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        self._append(data + bytes(container.padded(len(data)) - len(data)))

    def finish(self) -> None:
        """Raises OutputFailed."""
        self.output.append(self._sums.content())
        self.output.finish()
        self.output.publish()

    def discard(self) -> None:
        """Nothing is left, unless it is finished."""
        self.output.discard()


class KeptFile:
    """Such a file, open. Every array is checked when it is read."""

    def __init__(self, path: Path, kind: str, again: str | None = None) -> None:
        """``again``: how to make it again, unless the same command does. Raises BadReference: not such a file, of an
        earlier version, or damaged."""
        self.path, self.hint = path, again or hint(path, kind)
        try:
            self.header = container.read_header(path)
            found = self.header.metadata.get("general.type")
            if found is None or found.data != kind:
                raise self.bad(f"holds no {WHAT[kind]} of a reference")
            self.file = SourceFile(path)
        except QuantcliError as error:
            raise self._as_bad(error) from error
        try:
            self._sums = sums.Stored(self.header, self.file.read)
        except QuantcliError as error:
            self.close()
            raise self._as_bad(error) from error

    def bad(self, message: str) -> BadReference:
        """The error of this file."""
        return BadReference(message, where=str(self.path), hint=self.hint)

    def _as_bad(self, error: QuantcliError) -> BadReference:
        if isinstance(error, BadReference):
            return error
        return BadReference(error.message, where=error.where, hint=self.hint)

    def array(self, name: str, shape: tuple[int, ...], kind: str) -> numpy.ndarray | None:
        """A tensor of the numpy ``shape`` and type that it must have; None where there is no such one. Raises
        BadReference for other bytes than were written, and for NaN."""
        info = self.header.by_name.get(name)
        if info is None or info.elements != numpy.prod(shape) or info.type_id != BY_NAME[kind].id:
            return None
        try:
            raw = self.file.read(self.header.data_start + info.offset, container.padded(info.bytes))
            self._sums.check(info, raw)
        except QuantcliError as error:
            raise self._as_bad(error) from error
        array = numpy.frombuffer(raw, DTYPES[kind], int(numpy.prod(shape))).reshape(shape)
        if kind == "F32" and numpy.isnan(array).any():
            raise self.bad(f"holds NaN: tensor {name}")
        return array

    def close(self) -> None:
        self.file.close()
