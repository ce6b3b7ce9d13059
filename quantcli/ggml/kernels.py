"""The cffi binding of the encoders, their steps and the decoders (ABI mode), nothing else.

Arrays go in and out without a copy; cffi releases the GIL during calls, so callers thread freely. QUANTCLI_SIMD names
the instruction set to use (scalar, avx2, avx512, neon, emu16); without it the best one that the CPU has.

Every function takes ``isa``, the name of an instruction set (default: QUANTCLI_SIMD, or the best), and raises
UnsupportedInstructionSet for one that is not there, NoKernel where the build has no such kernel, and ValueError for an
array that does not fit. Bytes and values do not depend on the instruction set.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy
from numpy.typing import DTypeLike, NDArray

from quantcli.errors import BrokenInstall, UnsupportedInstructionSet
from quantcli.ggml import tensor_types
from quantcli.ggml.failures import BAD_BLOCK, NO_KERNEL, OK, failure
from quantcli.system import LIBRARY_FLAGS, LIBRARY_SUFFIX

ABI = 7
SEARCHES = {"ggml": 0, "best": 1}
GGML_VERSION, GGML_COMMIT = "0.25.3", "0c1e570"  # whose bytes the search `ggml` writes; the commit is llama.cpp's
ENVIRONMENT = "QUANTCLI_SIMD"

Native: TypeAlias = Any  # what cffi hands out: it has no types
Floats: TypeAlias = NDArray[numpy.float32]
Bytes: TypeAlias = NDArray[numpy.uint8]
Raw: TypeAlias = bytes | bytearray | memoryview | mmap | NDArray[numpy.generic]


# ---- the library -----------------------------------------------------------------------------------------------


@cache
def library() -> tuple[Native, Native]:
    """(ffi, lib) of all that the headers declare. Raises BrokenInstall."""
    folder = Path(__file__).parent.parent / "_lib"
    path = folder / f"libquantcli{LIBRARY_SUFFIX}"
    hint = "install quantcli again (`pip install .`), or run scripts/build_kernels.py in a checkout"
    try:
        ffi = _binding(folder / "binding.py")
        lib = ffi.dlopen(str(path), LIBRARY_FLAGS)
    except OSError as error:
        raise BrokenInstall("the kernel library cannot be loaded", where=str(path), hint=hint) from error
    if lib.qc_abi() != ABI:
        raise BrokenInstall(
            f"the kernel library has interface {lib.qc_abi()}, this is for {ABI}", where=str(path), hint=hint
        )
    return ffi, lib


def _binding(path: Path) -> Native:
    """The ``ffi`` of the module that the build made of the headers (parsed there, not at every start)."""
    spec = spec_from_file_location("quantcli_binding", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi


def instruction_sets() -> list[tuple[str, bool]]:
    """(name, supported by this CPU) of every instruction set in this build."""
    ffi, lib = library()
    return [(ffi.string(lib.qc_isa_name(i)).decode(), bool(lib.qc_isa_supported(i))) for i in range(lib.qc_isa_count())]


def isa() -> str:
    """The name of the instruction set in use. Raises UnsupportedInstructionSet."""
    return instruction_sets()[isa_index(None)][0]


@cache
def _isa(name: str | None) -> int:
    sets = instruction_sets()
    if name is None:
        return int(library()[1].qc_isa_best())
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


class Layout(NamedTuple):
    """What a type is for the kernels (csrc/types.def): ``block`` weights take ``bytes`` bytes.

    ``sub_block`` weights share a scale and, if ``minima``, a minimum (0: a float type); a weight is
    scale * code + minimum with a code of ``low`` to ``high``.
    """

    block: int
    bytes: int
    sub_block: int
    low: int
    high: int
    minima: bool


def layout(type_id: int) -> Layout | None:
    """What the library knows of a type, or None for one without kernels."""
    ffi, lib = library()
    found = lib.qc_type_layout(type_id)
    if found == ffi.NULL:
        return None
    return Layout(found.block, found.bytes, found.sub, found.low, found.high, bool(found.minima))


def can_encode(type_id: int, search: str = "ggml") -> bool:
    """Whether this build encodes the type with this search."""
    return bool(library()[1].qc_can_encode(type_id, SEARCHES[search]))


def can_decode(type_id: int) -> bool:
    """Whether this build decodes the type."""
    return bool(library()[1].qc_can_decode(type_id))


def can_fit(type_id: int) -> bool:
    """Whether the type has ``fit``, ``assign`` and ``parameters``."""
    return bool(library()[1].qc_can_fit(type_id))


def can_set_parameters(type_id: int) -> bool:
    """Whether the type has ``set_parameters``."""
    return bool(library()[1].qc_can_set_parameters(type_id))


# ---- whole encoders and decoders -------------------------------------------------------------------------------


def encode(
    type_id: int,
    x: Floats,
    importance: Floats | None = None,
    *,
    search: str = "ggml",
    out: Bytes | None = None,
    isa: str | None = None,
) -> Bytes:
    """Encode float32 ``x`` [rows, columns] (C order) to uint8 [rows, bytes per row], into ``out`` if given.

    ``importance``: float32 [columns], one weight per column for all rows, or None. Raises NonFiniteWeight,
    ScaleOverflow, BadImportance with attributes ``row`` and ``column``, and NoKernel.
    """
    return _search("qc_encode", type_id, x, importance, search, out, isa)


def decode(
    type_id: int, raw: Raw, rows: int, columns: int, out: Floats | None = None, *, isa: str | None = None
) -> Floats:
    """Decode a buffer of ``rows`` x ``columns`` weights to float32 [rows, columns], into ``out`` if given."""
    lib = library()[1]
    if out is None:
        out = numpy.empty((rows, columns), numpy.float32)
    _check_array(out, numpy.float32, rows * columns)
    data = _raw(type_id, raw, rows, columns)
    status = lib.qc_decode(isa_index(isa), type_id, data, rows, columns, _writable("float[]", out))
    if status != OK:
        raise failure(status, type_id, None)
    return out


def validate(type_id: int, raw: Raw, rows: int, columns: int, *, isa: str | None = None) -> tuple[int, int] | None:
    """(row, column) of the first block whose scale (weight, for float types) is not finite, or None."""
    ffi, lib = library()
    data = _raw(type_id, raw, rows, columns)
    place = ffi.new("qc_place *")
    status = lib.qc_validate(isa_index(isa), type_id, data, rows, columns, place)
    if status == BAD_BLOCK:
        return place.row, place.column
    if status != OK:
        raise failure(status, type_id, place)
    return None


# ---- the steps of an encoder -----------------------------------------------------------------------------------


def fit(
    type_id: int,
    x: Floats,
    importance: Floats | None = None,
    *,
    search: str = "ggml",
    out: Bytes | None = None,
    isa: str | None = None,
) -> Bytes:
    """Blocks with the parameters (scales, minima) that ``encode`` finds, all codes zero bits; else as ``encode``."""
    return _search("qc_fit", type_id, x, importance, search, out, isa)


def assign(
    type_id: int, x: Floats, blocks: Bytes, importance: Floats | None = None, *, isa: str | None = None
) -> Bytes:
    """Put the codes of ``x`` float32 [rows, columns] into ``blocks`` uint8 [rows, bytes per row] with parameters.

    Every weight gets the nearest value that its block can give, of two equally near ones that of the lower code.
    Codebook types: the grid point of the least squared error, weighted by ``importance`` float32 [columns] if given,
    among those nearest to the weights. Returns ``blocks``. Raises NonFiniteWeight, also for a scale in ``blocks`` that
    is not finite, and BadImportance, with attributes ``row`` and ``column``, and NoKernel.
    """
    ffi, lib = library()
    rows, columns = x.shape
    _check_array(x, numpy.float32, rows * columns)
    _check_array(blocks, numpy.uint8, rows * _row_bytes(type_id, columns))
    place = ffi.new("qc_place *")
    status = lib.qc_assign(
        isa_index(isa),
        type_id,
        ffi.from_buffer("float[]", x),
        rows,
        columns,
        _importance(importance, columns),
        _writable("uint8_t[]", blocks),
        place,
    )
    if status != OK:
        raise failure(status, type_id, place)
    return blocks


def parameters(type_id: int, raw: Raw, rows: int, columns: int, *, isa: str | None = None) -> tuple[Floats, Floats]:
    """(scale, minimum) of every sub-block, float32 [rows, columns / sub_block] each: weight = scale * code + minimum.

    Codes run from ``layout(type_id).low`` to ``high``; minima of a type that has none are 0. Raises NoKernel.
    """
    lib = library()[1]
    data = _raw(type_id, raw, rows, columns)
    shape = rows, columns // _sub_block(type_id)
    scale, minimum = numpy.empty(shape, numpy.float32), numpy.empty(shape, numpy.float32)
    status = lib.qc_parameters(
        isa_index(isa), type_id, data, rows, columns, _writable("float[]", scale), _writable("float[]", minimum)
    )
    if status != OK:
        raise failure(status, type_id, None)
    return scale, minimum


def set_parameters(
    type_id: int, scale: Floats, minimum: Floats | None = None, *, out: Bytes | None = None, isa: str | None = None
) -> Bytes:
    """Blocks uint8 [rows, bytes per row] with the nearest parameters that the type can store, all codes zero bits.

    ``scale``, ``minimum``: float32 [rows, columns / sub_block], as ``parameters`` gives them; ``minimum`` is needed
    where the type has minima and ignored elsewhere. K types choose d (and dmin) so that the sub-scale of largest
    magnitude gets the farthest integer, and round the others to its multiples. Raises NonFiniteWeight (a parameter
    that is not finite), ScaleOverflow, both with ``row`` and ``column`` of a weight, and NoKernel.
    """
    ffi, lib = library()
    rows, columns = scale.shape[0], scale.shape[1] * _sub_block(type_id)
    width = _row_bytes(type_id, columns)
    if out is None:
        out = numpy.empty((rows, width), numpy.uint8)
    _check_array(scale, numpy.float32, scale.size)
    _check_array(out, numpy.uint8, rows * width)
    if minimum is not None:
        _check_array(minimum, numpy.float32, scale.size)
    place = ffi.new("qc_place *")
    status = lib.qc_set_parameters(
        isa_index(isa),
        type_id,
        ffi.from_buffer("float[]", scale),
        ffi.NULL if minimum is None else ffi.from_buffer("float[]", minimum),
        rows,
        columns,
        _writable("uint8_t[]", out),
        place,
    )
    if status != OK:
        raise failure(status, type_id, place)
    return out


# ---- arrays and failures ---------------------------------------------------------------------------------------


def _search(
    function: str, type_id: int, x: Floats, importance: Floats | None, search: str, out: Bytes | None, isa: str | None
) -> Bytes:
    """Call qc_encode or qc_fit."""
    ffi, lib = library()
    rows, columns = x.shape
    width = _row_bytes(type_id, columns)
    if out is None:
        out = numpy.empty((rows, width), numpy.uint8)
    _check_array(x, numpy.float32, rows * columns)
    _check_array(out, numpy.uint8, rows * width)
    place = ffi.new("qc_place *")
    status = getattr(lib, function)(
        isa_index(isa),
        type_id,
        SEARCHES[search],
        ffi.from_buffer("float[]", x),
        rows,
        columns,
        _importance(importance, columns),
        _writable("uint8_t[]", out),
        place,
    )
    if status != OK:
        raise failure(status, type_id, place)
    return out


def _row_bytes(type_id: int, columns: int) -> int:
    return tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns)


def _sub_block(type_id: int) -> int:
    found = layout(type_id)
    if found is None or not found.sub_block:
        raise failure(NO_KERNEL, type_id, None)
    return found.sub_block


def _importance(importance: Floats | None, columns: int) -> Native:
    if importance is None:
        return library()[0].NULL
    _check_array(importance, numpy.float32, columns)
    return library()[0].from_buffer("float[]", importance)


def _writable(kind: str, array: NDArray[numpy.generic]) -> Native:
    return library()[0].from_buffer(kind, array, require_writable=True)


def _raw(type_id: int, raw: Raw, rows: int, columns: int) -> Native:
    data, expected = library()[0].from_buffer("uint8_t[]", raw), _row_bytes(type_id, columns) * rows
    if len(data) < expected:
        raise ValueError(f"{len(data)} bytes where {expected} are needed")
    return data


def _check_array(array: NDArray[numpy.generic], dtype: DTypeLike, count: int) -> None:
    """The C side trusts its pointers: a caller's mistake must end here."""
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < count:
        raise ValueError(
            f"need a C-contiguous {numpy.dtype(dtype)} array of {count} elements, got {array.dtype} {array.shape}"
        )
