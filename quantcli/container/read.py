"""Read the header of a GGUF file (versions 2 and 3, little-endian) without trusting it.

Every count and length is checked against the file's size and `Limits` before anything is read or allocated for it.
Rules: the GGUF specification and what ggml's own loader rejects.
"""

from __future__ import annotations

import os
import struct
from contextlib import closing
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy

from quantcli import places
from quantcli.container import foreign
from quantcli.container.header import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    LIMITS,
    Header,
    Limits,
    TensorInfo,
    padded,
    without_trailing_ones,
)
from quantcli.container.values import CODES, DTYPES, LENGTH, Strings, Value, ValueType
from quantcli.container.write import MAGIC
from quantcli.errors import MalformedFile, QuantcliError, UnsupportedFile
from quantcli.ggml.tensor_types import BY_ID, TensorType, tensor_bytes
from quantcli.places import Bytes

FIRST_READ = 1 << 20
LARGEST_READ = 16 << 20
SMALLEST_ENTRY = 8 + 1 + 4 + 1  # bytes of a metadata entry: key length, key, type, value
SMALLEST_TENSOR = 8 + 1 + 4 + 4 + 8  # bytes of a tensor's row: name length, name, dimensions, type, offset
TYPES = {int(kind): kind for kind in ValueType}
REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
OLDER_MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}


def read_header(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> Header:
    """Read everything in front of the tensor data and check that the data lie inside the file.

    Raises MissingFile, UnsupportedFile (version, byte order, tensor types), MalformedFile (with the byte position).
    """
    path = Path(path)
    with closing(places.open_bytes(path)) as file:
        cursor = Cursor(file, path, limits)
        version, tensor_count, entry_count = _read_preamble(cursor)
        metadata = _read_metadata(cursor, entry_count)
        alignment = _alignment(cursor, metadata)
        tensors = _read_tensors(cursor, tensor_count, alignment)
        data_start = padded(cursor.position, alignment) if tensors else cursor.position
        if tensors:
            _check_end(cursor, tensors[-1], data_start)
        return Header(
            version, metadata, tensors, alignment, data_start, cursor.size, path, {info.name: info for info in tensors}
        )


class Cursor:
    """A position in a file that is read piece by piece, never past its end or the limit for headers."""

    def __init__(self, file: Bytes, path: Path, limits: Limits) -> None:
        self.file, self.path, self.limits = file, path, limits
        self.size = file.size
        self.position = 0
        self.buffer = bytearray()

    def fail(
        self, message: str, *, at: int | None = None, kind: type[QuantcliError] = MalformedFile, hint: str | None = None
    ) -> NoReturn:
        raise kind(message, where=f"{self.path}: byte {self.position if at is None else at}", hint=hint)

    def require(self, count: int, what: str) -> int:
        """Make ``count`` bytes available; returns the position in front of them and moves behind them."""
        start, end = self.position, self.position + count
        if end > len(self.buffer):
            self._fill(end, what)
        self.position = end
        return start

    def _fill(self, end: int, what: str) -> None:
        if end > self.size:
            self.fail(
                f"the file ends within {what}: {end} bytes are needed, it has {self.size}",
                hint="the file is truncated or damaged: get it again",
            )
        if end > self.limits.header_bytes:
            self.fail(f"the header is larger than {self.limits.header_bytes} bytes (in {what})")
        step = min(max(len(self.buffer), FIRST_READ), LARGEST_READ)
        target = min(max(end, len(self.buffer) + step), self.size, self.limits.header_bytes)
        while len(self.buffer) < target:
            piece = bytearray(min(target - len(self.buffer), LARGEST_READ))
            count = self.file.read_some(memoryview(piece), len(self.buffer))
            if not count:
                self.fail(f"the file ends within {what}: it was cut while being read")
            del piece[count:]
            if self.buffer:
                self.buffer += piece
            else:  # not copied: most headers come in one piece
                self.buffer = piece

    def scalar(self, kind: ValueType, what: str) -> int | float | bool:
        """One number or flag of type ``kind``."""
        code = CODES[kind]
        value: int | float | bool = code.unpack_from(self.buffer, self.require(code.size, what))[0]
        return value

    def number(self, kind: ValueType, what: str) -> int:
        """One number of the integer type ``kind``."""
        return int(self.scalar(kind, what))

    def count(self, kind: ValueType, what: str, smallest: int, limit: int) -> int:
        """A count of things that take at least ``smallest`` bytes each: checked against what is left of the file."""
        at = self.position
        count = self.number(kind, what)
        left = self.size - self.position
        if count < 0 or count * smallest > left:
            self.fail(f"{what} is {count}: more than the {left} bytes left can hold", at=at)
        if count > limit:
            self.fail(f"{what} is {count}: the limit is {limit}", at=at)
        return count

    def take(self, count: int, what: str) -> bytes:
        start = self.require(count, what)
        return bytes(memoryview(self.buffer)[start : start + count])

    def raw_string(self, what: str, limit: int) -> bytes:
        length = self.count(ValueType.UINT64, f"the length of {what}", 1, limit)
        return self.take(length, what)

    def packed_strings(self, count: int, what: str) -> Strings:
        """``count`` strings in a row, left packed. The one loop that runs per string: about 0.1 us each."""
        start = self.position
        unpack, limit, done = LENGTH.unpack_from, self.limits.string_bytes, 0
        while done < count:
            position, buffer = self.position, self.buffer
            safe = len(buffer) - 8
            while done < count and position <= safe:
                length = unpack(buffer, position)[0]
                if length > limit:
                    self.fail(f"string {done} of {what} has {length} bytes", at=position)
                position += 8 + length
                done += 1
            self.position = position
            if position > len(buffer) or done < count:  # the string just measured, or the next one's length
                self.position = min(position, len(buffer))
                self.require(position - self.position + (8 if done < count else 0), what)
                self.position = position
        return Strings(bytes(memoryview(self.buffer)[start : self.position]), count)


def _read_preamble(cursor: Cursor) -> tuple[int, int, int]:
    """Magic, version and the two counts."""
    magic = cursor.take(min(4, cursor.size), "the magic number")
    if magic in OLDER_MAGICS:
        cursor.fail(
            f"a {OLDER_MAGICS[magic]} file, the format before GGUF",
            at=0,
            kind=UnsupportedFile,
            hint="convert the original checkpoint instead",
        )
    if magic != MAGIC:
        found = foreign.recognise(foreign.beginning(cursor.path), cursor.path)
        what, hint = found or (f"it starts with {magic!r}" if magic else "it is empty", None)
        cursor.fail(f"not a GGUF file: {what}", at=0, hint=hint)
    version = cursor.number(ValueType.UINT32, "the version")
    if version and not version & 0xFFFF:
        cursor.fail("a big-endian GGUF file", at=4, kind=UnsupportedFile, hint="convert it on the machine it is for")
    if version not in (2, 3):
        cursor.fail(f"GGUF version {version}; versions 2 and 3 can be read", at=4, kind=UnsupportedFile)
    tensors = cursor.count(ValueType.INT64, "the number of tensors", SMALLEST_TENSOR, cursor.limits.tensors)
    entries = cursor.count(ValueType.INT64, "the number of metadata entries", SMALLEST_ENTRY, cursor.limits.keys)
    return version, tensors, entries


def _read_text(cursor: Cursor, what: str, limit: int) -> str:
    """A string that must be UTF-8, printable and not empty: a key or a tensor's name."""
    at = cursor.position
    raw = cursor.raw_string(what, limit)
    if not raw:
        cursor.fail(f"{what} is empty", at=at)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        cursor.fail(f"{what} is not UTF-8: {raw[:60]!r}", at=at + 8)
    if not text.isprintable():
        cursor.fail(f"{what} has unprintable characters: {text[:60]!a}", at=at + 8)
    return text


def _read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for index in range(count):
        at = cursor.position
        key = _read_text(cursor, f"metadata key {index}", cursor.limits.key_bytes)
        if key in metadata:
            cursor.fail(f"the metadata key {key[:100]!r} occurs twice", at=at)
        metadata[key] = _read_value(cursor, key[:100])
    return metadata


def _read_type(cursor: Cursor, what: str) -> ValueType:
    at = cursor.position
    number = cursor.number(ValueType.INT32, f"the type of {what}")
    if number not in TYPES:
        cursor.fail(f"{what} has the unknown value type {number}", at=at)
    return TYPES[number]


def _read_value(cursor: Cursor, key: str) -> Value:
    what = f"the value of {key!r}"
    kind = _read_type(cursor, what)
    if kind == ValueType.ARRAY:
        return _read_array(cursor, what)
    if kind == ValueType.STRING:
        raw = cursor.raw_string(what, cursor.limits.string_bytes)
        try:
            return Value(kind, raw.decode())
        except UnicodeDecodeError:
            return Value(kind, raw)
    return Value(kind, cursor.scalar(kind, what))


def _read_array(cursor: Cursor, what: str) -> Value:
    at = cursor.position
    element = _read_type(cursor, what)
    if element == ValueType.ARRAY:
        cursor.fail(f"{what} is an array of arrays, which GGUF does not have", at=at)
    if element == ValueType.STRING:
        count = cursor.count(ValueType.UINT64, f"the length of {what}", 8, cursor.limits.array_strings)
        return Value(ValueType.ARRAY, cursor.packed_strings(count, what), element)
    dtype = DTYPES[element]
    count = cursor.count(ValueType.UINT64, f"the length of {what}", dtype.itemsize, cursor.limits.array_elements)
    raw = cursor.take(count * dtype.itemsize, what)
    if element == ValueType.BOOL:  # any byte but 0 counts as true
        return Value(ValueType.ARRAY, numpy.frombuffer(raw, numpy.uint8) != 0, element)
    return Value(ValueType.ARRAY, numpy.frombuffer(raw, dtype), element)


def _alignment(cursor: Cursor, metadata: dict[str, Value]) -> int:
    value = metadata.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    if value.type != ValueType.UINT32:
        cursor.fail(f"{ALIGNMENT_KEY} is {value.type.name}, it has to be UINT32")
    alignment = int(value.data)
    if alignment == 0 or alignment & (alignment - 1) or alignment > cursor.limits.alignment:
        cursor.fail(f"{ALIGNMENT_KEY} is {alignment}, not a power of two up to {cursor.limits.alignment}")
    return alignment


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> list[TensorInfo]:
    tensors: list[TensorInfo] = []
    names: set[str] = set()
    expected = 0
    for index in range(count):
        at = cursor.position
        name = _read_text(cursor, f"the name of tensor {index}", cursor.limits.name_bytes)
        if name in names:
            cursor.fail(f"two tensors are called {name!r}", at=at)
        names.add(name)
        shape, number, offset = _read_row(cursor, name)
        at = cursor.position - 8  # of the offset
        kind, size = _tensor_type(cursor, name, shape, number, at - 4)
        if offset != expected:
            cursor.fail(
                f"tensor {name!r} starts at {offset} of the data; it has to follow the previous one at "
                f"{expected} (no gaps, no overlaps, file order, alignment {alignment})",
                at=at,
            )
        if offset + size > cursor.size:
            cursor.fail(
                f"tensor {name!r} of {size} bytes does not fit in a file of {cursor.size}",
                at=at,
                hint="the file is truncated or damaged: get it again",
            )
        tensors.append(TensorInfo(name, shape, kind.id, offset, size))
        expected = offset + padded(size, alignment)
    return tensors


def _read_row(cursor: Cursor, name: str) -> tuple[tuple[int, ...], int, int]:
    """Shape, number of the type and offset of a tensor."""
    what, at = f"the row of tensor {name!r}", cursor.position
    count = cursor.number(ValueType.UINT32, what)
    if count > cursor.limits.dimensions:
        cursor.fail(f"tensor {name!r} has {count} dimensions, GGUF allows {cursor.limits.dimensions}", at=at)
    layout = f"<{count}qiQ"
    *sizes, number, offset = struct.unpack_from(layout, cursor.buffer, cursor.require(struct.calcsize(layout), what))
    if any(size < 1 for size in sizes) or prod(sizes) > cursor.limits.elements:
        cursor.fail(f"tensor {name!r} has the impossible shape {sizes}", at=at)
    return without_trailing_ones(tuple(sizes)), number, offset


def _tensor_type(cursor: Cursor, name: str, shape: tuple[int, ...], number: int, at: int) -> tuple[TensorType, int]:
    """The type of a tensor, and its bytes; ``at``: where its number stands."""
    kind = BY_ID.get(number)
    if kind is None:
        what = f"{REMOVED_TYPES[number]}, which ggml has removed" if number in REMOVED_TYPES else "unknown"
        cursor.fail(
            f"tensor {name!r} has the type {number}: {what}",
            at=at,
            kind=UnsupportedFile,
            hint="`quantcli formats` lists the types",
        )
    if shape[0] % kind.block:
        cursor.fail(
            f"tensor {name!r}: rows of {shape[0]} are no multiple of {kind.name}'s block of {kind.block}", at=at
        )
    return kind, tensor_bytes(kind, shape)


def _check_end(cursor: Cursor, last: TensorInfo, data_start: int) -> None:
    """The last tensor's bytes lie in the file; its padding may be missing, as ggml's model loader allows."""
    end = data_start + last.offset + last.bytes
    if end > cursor.size:
        cursor.fail(
            f"the tensor data end at {end}, the file has {cursor.size} bytes",
            at=cursor.size,
            hint="the file is truncated: get it again",
        )
