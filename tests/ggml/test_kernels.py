"""The kernels against bytes that ggml wrote (golden/blocks.npz), on every instruction set, and answers to bad input."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantcli.errors import BadImportance, IndivisibleRow, NoKernel, NonFiniteWeight, QuantcliError, ScaleOverflow
from quantcli.ggml import kernels, tensor_types

GOLDEN = Path(__file__).parents[1] / "golden" / "blocks.npz"

# Types whose bytes are ggml's in `--search ggml`: all.
EXACT = [
    "F16",
    "BF16",
    "Q8_0",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "TQ1_0",
    "TQ2_0",
    "MXFP4",
    "NVFP4",
    "Q1_0",
    "Q2_0",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_S",
    "IQ3_XXS",
    "IQ3_S",
    "IQ1_S",
    "IQ1_M",
]
REFUSED = ("IQ2_XXS", "IQ2_XS", "IQ1_S")  # by ggml without importance: nothing is stored
DECODED = ["F32", "F64", *EXACT]
UNKNOWN_TO_GGUF = {"Q1_0", "Q2_0"}  # the gguf package cannot decode them

# Where the fp16 scales of a block lie (IQ1_M and the types without fp16 have tests of their own).
HALF_SCALES = {
    "F16": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "IQ1_S": [0],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
    "Q1_0": [0],
    "Q2_0": [0],
}
NON_FINITE_BYTES = {  # type -> bytes of a bad scale or weight, and where they go
    "F32": [(0, b"\0\0\x80\x7f"), (0, b"\1\0\xc0\xff")],
    "F64": [(0, b"\0\0\0\0\0\0\xf0\x7f")],
    "BF16": [(0, b"\x80\x7f"), (0, b"\xc0\xff")],
    "MXFP4": [(0, b"\xff")],
    "IQ1_M": [(48, b"\0\0\0\0\0\xc0\0\x70")],
    **{name: [(at, bits) for at in places for bits in (b"\0\x7c", b"\1\xfe")] for name, places in HALF_SCALES.items()},
}

ENCODERS = [
    (row.name, search)
    for row in tensor_types.BY_ID.values()
    for search in kernels.SEARCHES
    if kernels.can_encode(row.id, search)
]
ISAS = [name for name, supported in kernels.instruction_sets() if supported]


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


def type_id(name: str) -> int:
    return tensor_types.BY_NAME[name].id


def cells(name: str) -> list[tuple[str, str]]:
    """(case, "plain" or "imatrix") of every stored result of a type."""
    keys = (key.split("/") for key in golden())
    return [(key[0], key[2]) for key in keys if len(key) == 3 and key[0] != "decode" and key[1] == name]


def encode_noting_overflow(name: str, x, importance, isa: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The bytes (complete even if a scale overflows) and the place of the first overflow."""
    out = np.full((len(x), tensor_types.row_bytes(tensor_types.by_name(name), x.shape[1])), 0xAA, np.uint8)
    try:
        kernels.encode(type_id(name), x, importance, out=out, isa=isa)
    except ScaleOverflow as error:
        return out, (error.row, error.column)
    return out, None


# ---- ggml's bytes -----------------------------------------------------------------------------------------------


def test_every_supported_instruction_set_is_tested():
    assert ISAS[0] == "scalar" and "emu16" in ISAS
    if platform.machine() in ("aarch64", "arm64"):
        assert "neon" in ISAS
    assert kernels.isa() != "emu16"


@pytest.mark.parametrize("name", EXACT)
def test_shipped_types_have_encoders(name):
    assert kernels.can_encode(type_id(name)) and len(cells(name)) >= (
        13 if name in ("F16", "BF16") else 12 if name in REFUSED else 24
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", EXACT)
def test_encoding_gives_the_bytes_of_ggml(name, isa):
    for case, variant in cells(name):
        x = golden()[f"{case}/input"]
        importance = golden()[f"{case}/importance"] if variant == "imatrix" else None
        expected = golden()[f"{case}/{name}/{variant}"]
        out, overflow = encode_noting_overflow(name, x, importance, isa)
        different = np.argwhere(out != expected)
        assert not len(different), f"{case} {variant}: {len(different)} bytes differ, first (row, byte) {different[0]}"
        assert overflow == kernels.validate(type_id(name), expected, *x.shape), f"{case} {variant}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", EXACT)
def test_decoding_gives_the_values_of_ggml(name, isa):
    raw, values = golden()[f"decode/{name}/bytes"], golden()[f"decode/{name}/values"]
    decoded = kernels.decode(type_id(name), raw, *values.shape, isa=isa)
    assert decoded.tobytes() == values.tobytes()


def same_or_both_nan(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize("name", [name for name in EXACT if name not in UNKNOWN_TO_GGUF])
def test_decoding_random_bytes_agrees_with_the_gguf_package(name):
    """Also where scales are infinite or NaN."""
    import gguf

    row = tensor_types.by_name(name)
    columns = 101 * row.block * (33 if row.block == 1 else 1)  # odd numbers of blocks, and of floats
    raw = np.random.default_rng(row.id).integers(0, 256, (3, tensor_types.row_bytes(row, columns)), np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(row.id)).astype(np.float32)
    for isa in ISAS:
        assert same_or_both_nan(kernels.decode(row.id, raw, 3, columns, isa=isa), theirs), isa


@pytest.mark.parametrize("isa", ISAS)
def test_f32_and_f64_pass_through(isa):
    x = np.random.default_rng(1).standard_normal((5, 37)).astype(np.float32)
    x[0, :3] = 0.0, -0.0, 1e-45
    out = kernels.encode(type_id("F32"), x, isa=isa)
    assert out.tobytes() == x.tobytes()
    assert kernels.decode(type_id("F32"), out, 5, 37, isa=isa).tobytes() == x.tobytes()
    wide = np.random.default_rng(2).standard_normal((5, 37))
    decoded = kernels.decode(type_id("F64"), wide.view(np.uint8), 5, 37, isa=isa)
    assert decoded.tobytes() == wide.astype(np.float32).tobytes()


@pytest.mark.parametrize("isa", ISAS)
def test_every_half_decodes_and_every_rounding_boundary_encodes(isa):
    halves = np.arange(0x10000, dtype=np.uint16)
    halves = halves[(halves & 0x7C00) != 0x7C00]
    decoded = kernels.decode(type_id("F16"), halves.view(np.uint8), 1, halves.size, isa=isa)
    assert decoded.tobytes() == halves.view(np.float16).astype(np.float32).tobytes()
    ordered = np.arange(0x7BFF, dtype=np.uint16)
    low, high = (bits.view(np.float16).astype(np.float32) for bits in (ordered, ordered + np.uint16(1)))
    middle = (low + high) / 2  # exact: ties
    x = np.concatenate([low, np.nextafter(middle, low), middle, np.nextafter(middle, high)])
    x = np.concatenate([x, -x])[None]
    encoded = kernels.encode(type_id("F16"), x, isa=isa)
    assert encoded.tobytes() == x.astype(np.float16).tobytes()


# ---- the same bytes everywhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name,search", ENCODERS)
def test_any_number_of_rows_and_threads_gives_the_same_bytes(name, search):
    rng = np.random.default_rng(11)
    x = (rng.standard_normal((43, 512)) * np.exp(rng.standard_normal((43, 1)))).astype(np.float32)
    importance = rng.lognormal(size=512).astype(np.float32)

    def encode(start: int, stop: int, isa: str | None = None) -> np.ndarray:
        return kernels.encode(type_id(name), x[start:stop], importance, search=search, isa=isa)

    whole = encode(0, 43)
    cuts = [0, 1, 3, 10, 26, 43]  # slabs of 1, 2, 7, 16 and 17 rows
    for isa in ISAS:
        parts = [encode(a, b, isa) for a, b in itertools.pairwise(cuts)]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), isa
    for threads in (2, 3, 7):
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(lambda start: encode(start, start + 5), range(0, 43, 5))
            assert np.concatenate(list(parts)).tobytes() == whole.tobytes(), threads


def test_unaligned_memory_gives_the_same_bytes():
    x = np.random.default_rng(3).standard_normal((9, 256)).astype(np.float32)
    shifted = np.empty(x.nbytes + 4, np.uint8)[4:].view(np.float32).reshape(x.shape)
    shifted[:] = x
    for name in EXACT:
        expected = kernels.encode(type_id(name), x, None, isa="scalar")
        for isa in ISAS:
            out = np.empty(expected.size + 1, np.uint8)[1:].reshape(expected.shape)
            kernels.encode(type_id(name), shifted, None, out=out, isa=isa)
            assert out.tobytes() == expected.tobytes(), (name, isa)
            values = np.empty(x.nbytes + 4, np.uint8)[4:].view(np.float32).reshape(x.shape)
            kernels.decode(type_id(name), out, *x.shape, out=values, isa=isa)
            assert values.tobytes() == kernels.decode(type_id(name), expected, *x.shape, isa="scalar").tobytes(), (
                name,
                isa,
            )


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(isa, bad):
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"):
        for row, column in [(0, 0), (4, 255), (8, 511), (3, 100)]:
            x = np.ones((9, 512), np.float32)
            x[row, column] = bad
            x[8, 511] = bad
            with pytest.raises(NonFiniteWeight) as caught:
                kernels.encode(type_id(name), x, isa=isa)
            assert (caught.value.row, caught.value.column) == (row, column)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, -1e-45])
def test_importance_must_be_finite_and_not_negative(bad):
    importance = np.ones(512, np.float32)
    importance[[300, 400]] = bad
    with pytest.raises(BadImportance) as caught:
        kernels.encode(type_id("Q4_K"), np.ones((2, 512), np.float32), importance)
    assert caught.value.column == 300


def test_negative_zero_importance_is_zero():
    x = np.random.default_rng(1).standard_normal((8, 256)).astype(np.float32)
    zero, negative = np.ones((2, 256), np.float32)
    zero[5], negative[5] = 0.0, -0.0
    assert np.array_equal(kernels.encode(type_id("Q4_K"), x, zero), kernels.encode(type_id("Q4_K"), x, negative))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "name",
    [
        "F16",
        "Q8_0",
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ1_S",
        "IQ1_M",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ2_S",
        "IQ3_XXS",
        "IQ3_S",
        "IQ4_NL",
        "IQ4_XS",
    ],
)
def test_the_first_overflowing_block_is_named(name, isa):
    """The first in the order of rows, although some searches walk the columns outside."""
    block = tensor_types.by_name(name).block
    x = np.random.default_rng(4).standard_normal((21, 1024)).astype(np.float32)
    x[18, 300] = x[19, 5] = 1e12
    for weighted in (None, np.ones(1024, np.float32)):
        for search in kernels.SEARCHES:
            if not kernels.can_encode(type_id(name), search):
                continue
            with pytest.raises(ScaleOverflow) as caught:
                kernels.encode(type_id(name), x, weighted, search=search, isa=isa)
            assert (caught.value.row, caught.value.column) == (18, 300 // block * block), search


@pytest.mark.parametrize("name", DECODED)
def test_validation_finds_the_first_bad_block(name):
    row = tensor_types.by_name(name)
    columns, blocks = 6 * row.block, 18
    raw = np.zeros((blocks, row.bytes), np.uint8)
    for isa in ISAS:
        assert kernels.validate(row.id, raw, 3, columns, isa=isa) is None
    for offset, bits in NON_FINITE_BYTES.get(name, []):
        for block in (0, 7, 17):
            broken = raw.copy()
            for later_offset, later_bits in NON_FINITE_BYTES[name]:
                broken[17, later_offset : later_offset + len(later_bits)] = list(later_bits)
            broken[block, offset : offset + len(bits)] = list(bits)
            for isa in ISAS:
                found = kernels.validate(row.id, broken, 3, columns, isa=isa)
                assert found == (block // 6, block % 6 * row.block), (isa, offset)
    assert name in NON_FINITE_BYTES or name == "NVFP4"


def test_calls_that_fit_nothing_are_refused_before_c_sees_them():
    x, square = np.ones((2, 64), np.float32), np.ones((64, 64), np.float32)
    q8 = type_id("Q8_0")
    with pytest.raises(IndivisibleRow):
        kernels.encode(q8, np.ones((2, 33), np.float32))
    with pytest.raises(NoKernel):
        kernels.encode(type_id("F64"), x)
    with pytest.raises(NoKernel):
        kernels.decode(type_id("I32"), bytes(512), 2, 64)
    with pytest.raises(ValueError, match="unpack"):
        kernels.encode(q8, x[0])
    with pytest.raises(NoKernel):
        kernels.encode(type_id("Q8_K"), np.ones((1, 256), np.float32))
    for wrong in (x.astype(np.float64), square.T, square[:, ::2]):
        with pytest.raises(ValueError, match="C-contiguous"):
            kernels.encode(q8, wrong)
    with pytest.raises(ValueError, match="elements"):
        kernels.encode(q8, x, out=np.empty((1, 68), np.uint8))
    with pytest.raises(ValueError, match="elements"):
        kernels.encode(type_id("Q4_0"), x, np.ones(32, np.float32))
    with pytest.raises(ValueError, match="bytes"):
        kernels.decode(q8, bytes(67), 1, 64)
    with pytest.raises(ValueError, match="elements"):
        kernels.decode(q8, bytes(68), 1, 64, out=np.empty((1, 63), np.float32))
    with pytest.raises(ValueError, match="bytes"):
        kernels.validate(q8, bytes(67), 1, 64)


def test_empty_slabs_are_fine():
    assert kernels.encode(type_id("Q4_K"), np.empty((0, 256), np.float32)).shape == (0, 144)
    assert kernels.decode(type_id("Q4_K"), b"", 0, 256).shape == (0, 256)
    assert kernels.validate(type_id("Q4_K"), b"", 0, 256) is None


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="glibc's fesetround"
)
def test_an_unusual_rounding_mode_is_refused():
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = 0x800 if platform.machine() == "x86_64" else 0x400000
    x = np.ones((1, 32), np.float32)
    try:
        libm.fesetround(upward)
        with pytest.raises(QuantcliError, match="standard mode"):
            kernels.encode(type_id("Q8_0"), x)
        with pytest.raises(QuantcliError, match="standard mode"):
            kernels.decode(type_id("Q8_0"), bytes(34), 1, 32)
    finally:
        libm.fesetround(0)
    kernels.encode(type_id("Q8_0"), x)
