"""The cffi binding of the C kernels (ABI mode), nothing else.

Arrays go in and out without a copy; cffi releases the GIL during calls, so callers thread freely. QUANTCLI_SIMD names
the instruction set to use (scalar, avx2, avx512, neon, emu16); without it the best one that the CPU has.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from quantcli.errors import (
    BadImportance,
    BrokenInstall,
    NoKernel,
    NonFiniteWeight,
    QuantcliError,
    ScaleOverflow,
    UnsupportedInstructionSet,
)
from quantcli.ggml import tensor_types

ABI = 3
SEARCHES = {"ggml": 0, "best": 1}
ENVIRONMENT = "QUANTCLI_SIMD"

OK, NON_FINITE, OVERFLOW, NO_KERNEL, NO_MEMORY, BAD_IMPORTANCE, BAD_ROUNDING, BAD_BLOCK = range(8)

HEADERS = ("quantcli.h", "runner.h")


@cache
def library() -> tuple[Any, Any]:
    """(ffi, lib) of all that the headers declare. Raises BrokenInstall."""
    from cffi import FFI

    folder = Path(__file__).parent.parent / "_lib"
    path = folder / f"libquantcli.{'dylib' if sys.platform == 'darwin' else 'so'}"
    hint = "install quantcli again (`pip install .`), or run scripts/build_kernels.py in a checkout"
    ffi = FFI()
    try:
        for name in HEADERS:
            ffi.cdef(_declarations((folder / name).read_text(encoding="utf-8")))
        lib = ffi.dlopen(str(path))
    except OSError as error:
        raise BrokenInstall("the kernel library cannot be loaded", where=str(path), hint=hint) from error
    if lib.qc_abi() != ABI:
        raise BrokenInstall(
            f"the kernel library has interface {lib.qc_abi()}, this is for {ABI}", where=str(path), hint=hint
        )
    return ffi, lib


def _declarations(header: str) -> str:
    """A header as cffi reads it: without what is for the preprocessor."""
    lines = (line for line in header.splitlines() if not line.startswith("#"))
    return "\n".join(lines).replace("QC_API", "")


def instruction_sets() -> list[tuple[str, bool]]:
    """(name, supported by this CPU) of every instruction set in this build."""
    ffi, lib = library()
    return [(ffi.string(lib.qc_isa_name(i)).decode(), bool(lib.qc_isa_supported(i))) for i in range(lib.qc_isa_count())]


def isa() -> str:
    """The name of the instruction set in use. Raises UnsupportedInstructionSet."""
    return instruction_sets()[_isa(os.environ.get(ENVIRONMENT) or None)][0]


@cache
def _isa(name: str | None) -> int:
    sets = instruction_sets()
    if name is None:
        return library()[1].qc_isa_best()
    for index, (known, supported) in enumerate(sets):
        if known == name.lower() and supported:
            return index
    usable = ", ".join(known for known, supported in sets if supported)
    lacks = "this CPU lacks" if name.lower() in dict(sets) else "this build does not know"
    raise UnsupportedInstructionSet(
        f"{lacks} the instruction set {name!r}", where=ENVIRONMENT, hint=f"usable here: {usable}"
    )


def isa_index(name: str | None) -> int:
    """The library's number of an instruction set; None: the one in use. Raises UnsupportedInstructionSet."""
    return _isa(name or os.environ.get(ENVIRONMENT) or None)


def block_sizes(type_id: int) -> tuple[int, int] | None:
    """(weights, bytes) of a block as the library has them (csrc/types.def), or None for a type without kernels."""
    lib = library()[1]
    block = lib.qc_type_block(type_id)
    return (block, lib.qc_type_bytes(type_id)) if block else None


def can_encode(type_id: int, search: str = "ggml") -> bool:
    """Whether this build encodes the type with this search."""
    return bool(library()[1].qc_can_encode(type_id, SEARCHES[search]))


def can_decode(type_id: int) -> bool:
    """Whether this build decodes the type."""
    return bool(library()[1].qc_can_decode(type_id))


def encode(
    type_id: int,
    x: numpy.ndarray,
    importance: numpy.ndarray | None = None,
    *,
    search: str = "ggml",
    out: numpy.ndarray | None = None,
    isa: str | None = None,
) -> numpy.ndarray:
    """Encode float32 ``x`` [rows, columns] (C order) to uint8 [rows, bytes per row], into ``out`` if given.

    ``importance``: float32 [columns], one weight per column for all rows, or None. Raises NonFiniteWeight,
    ScaleOverflow, BadImportance with attributes ``row`` and ``column``, and NoKernel.
    """
    ffi, lib = library()
    rows, columns = x.shape
    width = tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns)
    if out is None:
        out = numpy.empty((rows, width), numpy.uint8)
    _check_array(x, numpy.float32, rows * columns)
    _check_array(out, numpy.uint8, rows * width)
    if importance is not None:
        _check_array(importance, numpy.float32, columns)
    place = ffi.new("qc_place *")
    status = lib.qc_encode(
        isa_index(isa),
        type_id,
        SEARCHES[search],
        ffi.from_buffer("float[]", x),
        rows,
        columns,
        ffi.NULL if importance is None else ffi.from_buffer("float[]", importance),
        ffi.from_buffer("uint8_t[]", out, require_writable=True),
        place,
    )
    if status != OK:
        raise _failure(status, type_id, place)
    return out


def decode(
    type_id: int, raw: Any, rows: int, columns: int, out: numpy.ndarray | None = None, *, isa: str | None = None
) -> numpy.ndarray:
    """Decode a buffer of ``rows`` x ``columns`` weights to float32 [rows, columns], into ``out`` if given."""
    ffi, lib = library()
    if out is None:
        out = numpy.empty((rows, columns), numpy.float32)
    _check_array(out, numpy.float32, rows * columns)
    data = _raw(ffi, raw, tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns) * rows)
    status = lib.qc_decode(
        isa_index(isa), type_id, data, rows, columns, ffi.from_buffer("float[]", out, require_writable=True)
    )
    if status != OK:
        raise _failure(status, type_id, None)
    return out


def validate(type_id: int, raw: Any, rows: int, columns: int, *, isa: str | None = None) -> tuple[int, int] | None:
    """(row, column) of the first block whose scale (weight, for float types) is not finite, or None."""
    ffi, lib = library()
    data = _raw(ffi, raw, tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns) * rows)
    place = ffi.new("qc_place *")
    status = lib.qc_validate(isa_index(isa), type_id, data, rows, columns, place)
    if status == BAD_BLOCK:
        return place.row, place.column
    if status != OK:
        raise _failure(status, type_id, place)
    return None


def _raw(ffi, raw: Any, expected: int):
    data = ffi.from_buffer("uint8_t[]", raw)
    if len(data) < expected:
        raise ValueError(f"{len(data)} bytes where {expected} are needed")
    return data


def _check_array(array: numpy.ndarray, dtype: type, count: int) -> None:
    """The C side trusts its pointers: a caller's mistake must end here."""
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < count:
        raise ValueError(
            f"need a C-contiguous {numpy.dtype(dtype)} array of {count} elements, got {array.dtype} {array.shape}"
        )


def _failure(status: int, type_id: int, place) -> QuantcliError:
    name = tensor_types.BY_ID[type_id].name
    brain, value = name == "BF16", "scale" if tensor_types.BY_ID[type_id].quantized else "weight"
    rows = {
        NON_FINITE: (
            NonFiniteWeight,
            "a weight is NaN or infinite",
            "the checkpoint is damaged, or was saved in F16 after an overflow",
        ),
        OVERFLOW: (
            ScaleOverflow,
            f"too large for {name}: a {value} exceeds the range of {'BF16' if brain else 'half precision'}",
            f"use {'F32' if brain else 'BF16 or F32'} for this tensor (--tensor-type)",
        ),
        BAD_IMPORTANCE: (
            BadImportance,
            "importance that is negative, NaN or infinite",
            "collect the importance matrix again",
        ),
        NO_KERNEL: (
            NoKernel,
            f"this build cannot encode or decode {name} this way",
            "`quantcli formats` shows what it can",
        ),
        NO_MEMORY: (QuantcliError, "out of memory in a kernel", "use fewer --threads"),
        BAD_ROUNDING: (
            QuantcliError,
            "the floating-point unit is not in its standard mode (rounding, denormals)",
            "some library in this process changed it, often one built with -ffast-math",
        ),
    }
    kind, message, hint = rows[status]
    error = kind(message, hint=hint)
    error.row, error.column = (int(place.row), int(place.column)) if place is not None else (-1, -1)
    return error
