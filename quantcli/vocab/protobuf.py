"""The protobuf wire format, as far as a sentencepiece model needs it: fields of a message, bounded by its bytes.

Source of the format: the protocol buffers encoding guide. Nothing is allocated that the bytes do not hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from quantcli.errors import MalformedFile

VARINT, _FIXED64, _LENGTH, FIXED32 = 0, 1, 2, 5


def fields(data: memoryview, where: str, base: int = 0) -> Iterator[tuple[int, int, int | memoryview, int]]:
    """(number, wire type, value, byte position) of every field. Values: int for varint and fixed, bytes for length.

    ``base`` is the position of ``data`` in the file, for messages. Raises MalformedFile.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        key, position = _varint(data, position, where, base)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, position = _varint(data, position, where, base)
            yield number, wire, value, base + start
        elif wire == _LENGTH:
            size, position = _varint(data, position, where, base)
            if size > end - position:
                raise _malformed(f"a field of {size:,} bytes reaches beyond its end", where, base + start)
            yield number, wire, data[position : position + size], base + position
            position += size
        elif wire in (FIXED32, _FIXED64):
            size = 4 if wire == FIXED32 else 8
            if size > end - position:
                raise _malformed("a number reaches beyond its end", where, base + start)
            yield number, wire, int.from_bytes(data[position : position + size], "little"), base + start
            position += size
        else:
            raise _malformed(f"wire type {wire} is unknown: no protobuf message", where, base + start)
        if number == 0:
            raise _malformed("field number 0: no protobuf message", where, base + start)


def _varint(data: memoryview, position: int, where: str, base: int) -> tuple[int, int]:
    """The variable-length integer at ``position`` and the position behind it."""
    value = shift = 0
    start = position
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _malformed("a number does not end", where, base + start)


def _malformed(message: str, where: str, position: int) -> MalformedFile:
    """The error at a byte of the file."""
    return MalformedFile(message, where=f"{where}, byte {position}")


def float32(bits: int) -> float:
    """The float whose 32 bits these are."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])
