"""GGUF metadata values: thirteen types, arrays of twelve of them, and packed strings that are decoded when looked at.

A value keeps its exact GGUF type, so that what is carried over from one file to another stays what it was.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any, SupportsFloat, SupportsInt, TypeAlias, overload

import numpy
from numpy.typing import NDArray

from quantcli.errors import BadConfig, MalformedFile


class ValueType(IntEnum):
    """The type numbers of GGUF metadata."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


Array: TypeAlias = NDArray[numpy.generic]

# Little-endian numpy dtype of every type with a fixed size; its item size is the size in the file.
DTYPES: dict[ValueType, numpy.dtype[numpy.generic]] = {
    ValueType.UINT8: numpy.dtype("<u1"),
    ValueType.INT8: numpy.dtype("<i1"),
    ValueType.UINT16: numpy.dtype("<u2"),
    ValueType.INT16: numpy.dtype("<i2"),
    ValueType.UINT32: numpy.dtype("<u4"),
    ValueType.INT32: numpy.dtype("<i4"),
    ValueType.FLOAT32: numpy.dtype("<f4"),
    ValueType.BOOL: numpy.dtype("?"),
    ValueType.UINT64: numpy.dtype("<u8"),
    ValueType.INT64: numpy.dtype("<i8"),
    ValueType.FLOAT64: numpy.dtype("<f8"),
}

# The same types for the struct module.
CODES: dict[ValueType, struct.Struct] = {
    kind: struct.Struct("<" + code)
    for kind, code in zip(DTYPES, ("B", "b", "H", "h", "I", "i", "f", "?", "Q", "q", "d"), strict=True)
}

LENGTH = struct.Struct("<Q")  # in front of every string


class Strings(Sequence[str]):
    """A GGUF array of strings in its packed form (u64 length, bytes, u64 length, bytes ...).

    Packed bytes are carried from file to file untouched; offsets are found when an element is asked for, and invalid
    UTF-8 is an error (MalformedFile) only then.
    """

    __slots__ = ("_count", "_starts", "raw")

    def __init__(self, raw: bytes, count: int) -> None:
        """``raw`` must hold exactly ``count`` packed strings; the reader of the file has checked that."""
        self.raw = raw
        self._count = count
        self._starts: NDArray[numpy.int64] | None = None

    @classmethod
    def from_list(cls, items: Iterable[object]) -> Strings:
        """Pack ``items``, text or bytes. Raises BadConfig for anything else, MalformedFile for text that has no UTF-8
        form (lone surrogates)."""
        packed = _packed(list(items))
        pieces = [b""] * (2 * len(packed))
        pieces[::2], pieces[1::2] = map(LENGTH.pack, map(len, packed)), packed
        return cls(b"".join(pieces), len(packed))

    def __len__(self) -> int:
        return self._count

    def bytes_at(self, index: int) -> bytes:
        """The undecoded bytes of one string."""
        if self._starts is None:
            self._starts = self._find_starts()
        start = int(self._starts[range(self._count)[index]])
        length: int = LENGTH.unpack_from(self.raw, start - 8)[0]
        return self.raw[start : start + length]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return self._decode(self.bytes_at(index), index)

    def __iter__(self) -> Iterator[str]:
        raw, length, position = self.raw, LENGTH.unpack_from, 0
        for index in range(self._count):
            start = position + 8
            position = start + length(raw, position)[0]
            yield self._decode(raw[start:position], index)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return self._count == other._count and self.raw == other.raw
        if isinstance(other, list | tuple):
            return self._count == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<{self._count} strings, {len(self.raw)} bytes>"

    def _find_starts(self) -> NDArray[numpy.int64]:
        starts = numpy.empty(self._count, numpy.int64)
        raw, length, position = self.raw, LENGTH.unpack_from, 8
        for index in range(self._count):
            starts[index] = position
            position += 8 + length(raw, position - 8)[0]
        return starts

    @staticmethod
    def _decode(raw: bytes, index: int) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise MalformedFile(f"string {index} of an array is not UTF-8: {raw[:40]!r}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One metadata value.

    ``data`` is an int, float, bool or str; bytes for a string that is not UTF-8 (carried over as it is); for arrays a
    one-dimensional numpy array or `Strings`, and ``element`` is then the type of the elements.
    """

    type: ValueType
    data: Any
    element: ValueType | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value):
            return NotImplemented
        if (self.type, self.element) != (other.type, other.element):
            return False
        if isinstance(self.data, numpy.ndarray):  # bit for bit: NaN equals itself
            return isinstance(other.data, numpy.ndarray) and self.data.tobytes() == other.data.tobytes()
        return bool(self.data == other.data)

    def __hash__(self) -> int:
        data = self.data.tobytes() if isinstance(self.data, numpy.ndarray) else self.data
        return hash((self.type, self.element, data))


def _packed(items: Sequence[Any]) -> list[bytes]:
    """The bytes of texts and bytes, of which there may be a million."""
    try:
        return list(map(str.encode, items))
    except (TypeError, UnicodeEncodeError):  # one of them is bytes, or no text: say which
        return [item if isinstance(item, bytes) else _utf8(item) for item in items]


def _utf8(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadConfig(f"{_shown(text)} is not a string")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MalformedFile(f"text without a UTF-8 form (a lone surrogate): {text[:40]!a}") from error


def _whole(kind: ValueType, number: object) -> Value:
    """A number as an integer of type ``kind``; 4.0 is taken as 4. Raises BadConfig where it does not fit."""
    limits = numpy.iinfo(DTYPES[kind].str)
    if isinstance(number, bool) or not isinstance(number, SupportsInt) or isinstance(number, str):
        raise BadConfig(f"{_shown(number)} is not a whole number")
    if isinstance(number, float | numpy.floating) and not (isfinite(number) and number == int(number)):
        raise BadConfig(f"{_shown(number)} is not a whole number")
    whole = int(number)
    if not int(limits.min) <= whole <= int(limits.max):
        raise BadConfig(f"{_shown(number)} is out of range: {kind.name} holds {limits.min} to {limits.max}")
    return Value(kind, whole)


def _shown(data: object) -> str:
    """``data`` for a message: short whatever it is (an integer of a million digits included)."""
    if isinstance(data, int) and abs(data) >= 10**40:
        return f"a number of {data.bit_length()} bits"
    text = ascii(data)
    return text if len(text) <= 60 else text[:60] + "..."


def u8(number: object) -> Value:
    return _whole(ValueType.UINT8, number)


def u16(number: object) -> Value:
    return _whole(ValueType.UINT16, number)


def u32(number: object) -> Value:
    return _whole(ValueType.UINT32, number)


def i32(number: object) -> Value:
    return _whole(ValueType.INT32, number)


def u64(number: object) -> Value:
    return _whole(ValueType.UINT64, number)


def f32(number: object) -> Value:
    """A real number, rounded to float32 here, so that it equals what a reader finds. Raises BadConfig."""
    if isinstance(number, bool | str | bytes) or not isinstance(number, SupportsFloat):
        raise BadConfig(f"{_shown(number)} is not a number")
    try:
        rounded = CODES[ValueType.FLOAT32].unpack(CODES[ValueType.FLOAT32].pack(float(number)))[0]
    except OverflowError as error:
        raise BadConfig(f"{_shown(number)} is out of range for a 32-bit float") from error
    if not isfinite(rounded):
        raise BadConfig(f"{_shown(number)} is not a finite number")
    return Value(ValueType.FLOAT32, rounded)


def boolean(flag: object) -> Value:
    """True or false, nothing that merely resembles them. Raises BadConfig."""
    if not isinstance(flag, bool | numpy.bool_):
        raise BadConfig(f"{_shown(flag)} is neither true nor false")
    return Value(ValueType.BOOL, bool(flag))


def string(text: object) -> Value:
    """Text. Raises BadConfig for anything else, MalformedFile for text that has no UTF-8 form."""
    _utf8(text)
    return Value(ValueType.STRING, text)


def strings(items: Iterable[object]) -> Value:
    """An array of strings; bytes are taken as they are."""
    packed = items if isinstance(items, Strings) else Strings.from_list(items)
    return Value(ValueType.ARRAY, packed, ValueType.STRING)


def array(kind: ValueType, items: Iterable[object]) -> Value:
    """An array of ``kind`` from a sequence. Raises BadConfig where an element does not fit."""
    if kind == ValueType.STRING:
        return strings(items)
    if kind not in DTYPES:
        raise BadConfig("an array cannot hold arrays")
    try:
        given = numpy.asarray(items if isinstance(items, numpy.ndarray) else list(items))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadConfig(f"{_shown(items)} is not a list of numbers") from error
    return Value(ValueType.ARRAY, _converted(kind, given), kind)


def _converted(kind: ValueType, given: Array) -> Array:
    dtype = DTYPES[kind]
    if given.ndim != 1 or (given.size and given.dtype.kind not in ("b" if kind == ValueType.BOOL else "iuf")):
        raise BadConfig(f"{_shown(given[:20].tolist())} is not a list of {kind.name}")
    with numpy.errstate(all="ignore"):
        data = given.astype(dtype)
    if not _lossless(given, data):
        raise BadConfig(f"an element of {_shown(given[:20].tolist())} is out of range for {kind.name}")
    return data


def _lossless(given: Array, data: Array) -> bool:
    """Whether the conversion kept every integer exact and every float finite that was so."""
    if not given.size or data.dtype.kind == "b":
        return True
    if data.dtype.kind == "f":
        return bool((numpy.isfinite(data) | ~numpy.isfinite(given)).all())
    limits = numpy.iinfo(data.dtype.str)
    low, high = given.min().item(), given.max().item()  # NaN fails the comparisons
    whole = given.dtype.kind != "f" or bool((numpy.floor(given) == given).all())
    return whole and low >= int(limits.min) and high <= int(limits.max)
