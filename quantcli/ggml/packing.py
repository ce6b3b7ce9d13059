"""The cffi binding of what packed checkpoints need: decoders of codes, turned packings, blocks that carry weights over.

As ``kernels`` for the rest: arrays without a copy, no interpreter lock during calls, the same values on every
instruction set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.ggml.failures import OK, failure
from quantcli.ggml.kernels import Bytes, Floats, isa_index, library


class Packing(NamedTuple):
    """One way of packing codes: its number in csrc/checkpoints.h, and bits per code."""

    number: int
    bits: int

    def row_bytes(self, columns: int) -> int:
        """Bytes of ``columns`` codes, which have to fill whole bytes."""
        return columns * self.bits // 8


NIBBLES = Packing(0, 4)  # the low four bits first
NIBBLES_HIGH = Packing(1, 4)  # the high four bits first
PAIRS = Packing(2, 2)
BYTES = Packing(3, 8)
SIGNED = Packing(4, 8)
E4M3 = Packing(5, 8)
E5M2 = Packing(6, 8)

Words = NDArray[numpy.uint32]
Indices = NDArray[numpy.int32]


def unpack(
    packing: Packing,
    codes: Bytes,
    columns: int,
    scale: Floats,
    *,
    group: int = 0,
    zero: Floats | None = None,
    levels: Floats | None = None,
    index: Indices | None = None,
    out: Floats | None = None,
    isa: str | None = None,
) -> Floats:
    """Rows of codes, uint8 [rows, bytes of a row], as float32 [rows, columns]: (code - zero) * scale, or level * scale.

    ``scale`` and ``zero``: float32 [rows, groups]. The group of column c is c // ``group`` (0: one for all), or
    ``index[c]``, int32 [columns]. ``levels``: float32 [16], what the codes of nibbles mean.
    """
    ffi, lib = library()
    rows, groups = scale.shape
    if out is None:
        out = numpy.empty((rows, columns), numpy.float32)
    need = -(-columns // group) if group else 1
    _check(codes, numpy.uint8, rows * packing.row_bytes(columns))
    _check(scale, numpy.float32, rows * groups)
    _check(out, numpy.float32, rows * columns)
    if columns * packing.bits % 8 or (index is None and groups < need):
        raise ValueError(f"{columns} columns of {packing.bits} bits with {groups} groups of {group}")
    if zero is not None:
        _check(zero, numpy.float32, rows * groups)
    if levels is not None:
        _check(levels, numpy.float32, 16)
    if index is not None:
        _check(index, numpy.int32, columns)
        if columns and (int(index.min()) < 0 or int(index.max()) >= groups):
            raise ValueError(f"an index beyond {groups} groups")
    packed = ffi.new("qc_packed *")
    held = [  # what the struct points to has to live as long
        ffi.NULL if array is None else ffi.from_buffer(f"{kind}[]", array)
        for kind, array in (
            ("uint8_t", codes),
            ("float", scale),
            ("float", zero),
            ("float", levels),
            ("int32_t", index),
        )
    ]
    packed.codes, packed.scale, packed.zero, packed.levels, packed.index = held
    packed.rows, packed.columns, packed.groups, packed.packing = rows, columns, groups, packing.number
    packed.group = group or max(columns, 1)
    status = lib.qc_unpack(isa_index(isa), packed, ffi.from_buffer("float[]", out, require_writable=True))
    if status != OK:
        raise failure(status, -1, None)
    return out


def turn_words(words: Words, *, isa: str | None = None) -> Words:
    """The transpose of ``words`` uint32 [rows, columns]."""
    return _turned("qc_turn_words", words, (words.shape[1], words.shape[0]), isa)


def turn_nibbles(words: Words, *, isa: str | None = None) -> Words:
    """AWQ's codes uint32 [inputs, outputs / 8] as [outputs, inputs / 8], inputs from the low nibble on."""
    if words.shape[0] % 8:
        raise ValueError(f"{words.shape[0]} inputs are no multiple of 8")
    return _turned("qc_turn_nibbles", words, (words.shape[1] * 8, words.shape[0] // 8), isa)


def can_snap(type_id: int) -> bool:
    """Whether ``snap`` knows the grid of the type."""
    return bool(library()[1].qc_can_snap(type_id))


def snap(type_id: int, x: Floats, out: Bytes, *, encoded: bool = False, isa: str | None = None) -> Bytes:
    """Put the blocks of ``x`` float32 [rows, columns] that lie on the type's grid into ``out`` uint8 [rows, bytes].

    With ``encoded``, ``out`` holds blocks of these weights, and those that give the weights back are left as they are.

    Returns uint8 [rows, blocks of a row]: 0, on no grid (``out`` is as it was there); 1, the block decodes to the
    weights to their own precision; 2, to the bit. Raises NonFiniteWeight, NoKernel.
    """
    ffi, lib = library()
    rows, columns = x.shape
    tensor_type = tensor_types.BY_ID[type_id]
    carried = numpy.zeros((rows, columns // tensor_type.block), numpy.uint8)
    _check(x, numpy.float32, rows * columns)
    _check(out, numpy.uint8, rows * tensor_types.row_bytes(tensor_type, columns))
    place = ffi.new("qc_place *")
    status = lib.qc_snap(
        isa_index(isa),
        type_id,
        ffi.from_buffer("float[]", x),
        rows,
        columns,
        encoded,
        ffi.from_buffer("uint8_t[]", out, require_writable=True),
        ffi.from_buffer("uint8_t[]", carried, require_writable=True),
        place,
    )
    if status != OK:
        raise failure(status, type_id, place)
    return carried


def _turned(function: str, words: Words, shape: tuple[int, int], isa: str | None) -> Words:
    ffi, lib = library()
    _check(words, numpy.uint32, words.size)
    out = numpy.empty(shape, numpy.uint32)
    source, target = ffi.from_buffer("uint32_t[]", words), ffi.from_buffer("uint32_t[]", out, require_writable=True)
    status = getattr(lib, function)(isa_index(isa), source, *words.shape, target)
    if status != OK:
        raise failure(status, -1, None)
    return out


def _check(array: NDArray[numpy.generic], dtype: type[numpy.generic], count: int) -> None:
    """The C side trusts its pointers: a caller's mistake must end here."""
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < count:
        raise ValueError(
            f"need a C-contiguous {dtype.__name__} array of {count} elements, got {array.dtype} {array.shape}"
        )
