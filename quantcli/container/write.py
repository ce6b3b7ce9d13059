"""Encode the header of a GGUF file (version 3, little-endian). Empty strings and empty arrays are written.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy

from quantcli.container.header import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, LIMITS, padded, without_trailing_ones
from quantcli.container.values import CODES, DTYPES, LENGTH, Strings, Value, ValueType
from quantcli.errors import MalformedFile
from quantcli.ggml.tensor_types import BY_ID, tensor_bytes

MAGIC = b"GGUF"
VERSION = 3
PREAMBLE = struct.Struct("<4sIqq")  # magic, version, number of tensors, number of metadata entries

TensorRow = tuple[str, Sequence[int], int, int]  # name, shape (columns first), type id, offset from the data's start


def encode_header(
    metadata: Mapping[str, Value],
    tensors: Sequence[TensorRow],
    alignment: int = DEFAULT_ALIGNMENT,
    *,
    keep_ones: bool = False,
) -> bytes:
    """The bytes from the magic up to the first tensor's data (padding included if there are tensors).

    ``tensors``: (name, shape, type id, offset) in data order; the offsets are those of `place_tensors`. Trailing
    dimensions of 1 are dropped, as ggml's writer does, unless ``keep_ones``, as llama.cpp's converter does. Raises
    MalformedFile for what no reader would accept: bad or repeated names, gaps, an alignment that contradicts the
    metadata.
    """
    _check_alignment(metadata, alignment)
    pieces = [PREAMBLE.pack(MAGIC, VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        pieces += (_packed_text(key, LIMITS.key_bytes, "metadata key"), *_packed_value(key, value))
    _check_tensors(tensors, alignment)
    for name, shape, type_id, offset in tensors:
        sizes = tuple(shape) if keep_ones else without_trailing_ones(tuple(shape))
        pieces.append(_packed_text(name, LIMITS.name_bytes, "tensor name"))
        pieces.append(struct.pack(f"<I{len(sizes)}qiQ", len(sizes), *sizes, type_id, offset))
    if tensors:
        size = sum(map(len, pieces))
        pieces.append(bytes(padded(size, alignment) - size))
    return b"".join(pieces)


def header_size(
    metadata: Mapping[str, Value],
    tensors: Sequence[tuple[str, Sequence[int]]],
    alignment: int = DEFAULT_ALIGNMENT,
    *,
    keep_ones: bool = False,
) -> int:
    """The length of what `encode_header` would give, from (name, shape, ...) rows, without building it."""
    size = PREAMBLE.size
    for key, value in metadata.items():
        size += 8 + len(key.encode()) + 4 + _value_size(value)
    for name, shape, *_ in tensors:
        sizes = shape if keep_ones else without_trailing_ones(tuple(shape))
        size += 8 + len(name.encode()) + 4 + 8 * len(sizes) + 4 + 8
    return padded(size, alignment) if tensors else size


def place_tensors(
    tensors: Sequence[tuple[Sequence[int], int]], alignment: int = DEFAULT_ALIGNMENT
) -> tuple[list[int], int]:
    """Offsets of tensors given as (shape, type id), and the size of the whole data section, padding included."""
    offsets, position = [], 0
    for shape, type_id in tensors:
        offsets.append(position)
        position += padded(tensor_bytes(BY_ID[type_id], without_trailing_ones(tuple(shape))), alignment)
    return offsets, position


def _check_alignment(metadata: Mapping[str, Value], alignment: int) -> None:
    stated = metadata.get(ALIGNMENT_KEY)
    if (stated.data if stated is not None else DEFAULT_ALIGNMENT) != alignment:
        raise MalformedFile(f"data aligned to {alignment} contradicts {ALIGNMENT_KEY} in the metadata")
    if alignment < 1 or alignment & (alignment - 1) or alignment > LIMITS.alignment:
        raise MalformedFile(f"an alignment of {alignment} is not a power of two up to {LIMITS.alignment}")


def _check_tensors(tensors: Sequence[TensorRow], alignment: int) -> None:
    names: set[str] = set()
    expected = 0
    for name, shape, type_id, offset in tensors:
        sizes = without_trailing_ones(tuple(shape))
        if name in names:
            raise MalformedFile(f"two tensors are called {name!r}")
        if len(sizes) > LIMITS.dimensions or min(sizes) < 1:
            raise MalformedFile(f"tensor {name!r}: a GGUF file cannot hold shape {list(shape)}")
        if offset != expected:
            raise MalformedFile(f"tensor {name!r} starts at {offset}, the previous one ends at {expected}")
        names.add(name)
        expected = offset + padded(tensor_bytes(BY_ID[type_id], sizes), alignment)


def _packed_text(text: str, limit: int, what: str) -> bytes:
    raw = text.encode()
    if not 0 < len(raw) <= limit:
        raise MalformedFile(f"a {what} has 1 to {limit} bytes, not {len(raw)}: {text[:80]!r}")
    return LENGTH.pack(len(raw)) + raw


def _packed_value(key: str, value: Value) -> tuple[bytes, ...]:
    try:
        if value.type == ValueType.ARRAY:
            return _packed_array(value)
        if value.type == ValueType.STRING:
            raw = value.data if isinstance(value.data, bytes) else value.data.encode()
            return (struct.pack("<iQ", value.type, len(raw)), raw)
        return (struct.pack("<i", value.type) + CODES[value.type].pack(value.data),)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise MalformedFile(f"metadata {key}: {value.type.name} cannot hold this value ({error})") from error


def _packed_array(value: Value) -> tuple[bytes, ...]:
    assert value.element is not None
    head = struct.pack("<iiQ", value.type, value.element, len(value.data))
    if isinstance(value.data, Strings):
        return (head, value.data.raw)
    return (head, numpy.ascontiguousarray(value.data, DTYPES[value.element]).tobytes())


def _value_size(value: Value) -> int:
    if value.type == ValueType.STRING:
        return 8 + len(value.data if isinstance(value.data, bytes) else value.data.encode())
    if value.type != ValueType.ARRAY:
        return CODES[value.type].size
    if isinstance(value.data, Strings):
        return 12 + len(value.data.raw)
    assert value.element is not None
    return 12 + len(value.data) * DTYPES[value.element].itemsize
