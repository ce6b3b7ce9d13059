"""The encoders of the codebook types (IQ1 to IQ4) and of the types without a search: error bars, rules, robustness."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantcli.ggml import kernels, tensor_types

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parents[1] / "golden"
CODEBOOK = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
IQ4 = ("IQ4_NL", "IQ4_XS")
NEED_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")  # in ggml; here a default weight stands in
SEARCHES = tuple(kernels.SEARCHES)
#: mean error on trained tensors, relative to ggml's
BARS = {"IQ1_S": 1.0, "IQ1_M": 1.0, **dict.fromkeys(CODEBOOK[2:], 0.96), **dict.fromkeys(IQ4, 0.95)}


@cache
def objectives():
    """scripts/objectives.py: what the searches minimise."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("objectives", ROOT / "scripts" / "objectives.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "blocks.npz") as stored:
        return dict(stored)


def encode(name: str, x: np.ndarray, importance: np.ndarray | None = None, **options) -> np.ndarray:
    return kernels.encode(tensor_types.by_name(name).id, np.ascontiguousarray(x, np.float32), importance, **options)


def decoded(name: str, x: np.ndarray, importance: np.ndarray | None = None, **options) -> np.ndarray:
    return kernels.decode(tensor_types.by_name(name).id, encode(name, x, importance, **options), *x.shape)


def cases(name: str, variant: str) -> list[tuple[str, np.ndarray, np.ndarray | None, np.ndarray]]:
    """(case, weights, importance, what ggml's bytes decode to) of every stored result."""
    found = []
    for key in golden():
        parts = key.split("/")
        if len(parts) == 3 and parts[1:] == [name, variant]:
            x = golden()[f"{parts[0]}/input"]
            importance = golden()[f"{parts[0]}/importance"] if variant == "imatrix" else None
            found.append(
                (parts[0], x, importance, kernels.decode(tensor_types.by_name(name).id, golden()[key], *x.shape))
            )
    return found


def tails(rows: int = 5, columns: int = 1024) -> np.ndarray:
    return (np.random.default_rng(3).standard_t(3, (rows, columns)) * 0.02).astype(np.float32)


def importance(columns: int = 1024) -> np.ndarray:
    return np.random.default_rng(4).lognormal(size=columns).astype(np.float32)


# ---- error, held against ggml's -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["plain", "imatrix"])
@pytest.mark.parametrize(
    "name,search", [*((name, search) for name in CODEBOOK for search in SEARCHES), *((name, "best") for name in IQ4)]
)
def test_the_error_over_all_cases_is_at_most_that_of_ggml(name, search, variant):
    stored = cases(name, variant)
    if variant == "plain" and name in NEED_IMPORTANCE:
        assert not stored
        return
    assert len(stored) == 12
    error = objectives().error
    ours = sum(error(name, x, q, decoded(name, x, q, search=search), search) for _, x, q, _ in stored)
    ggml = sum(error(name, x, q, values, search) for _, x, q, values in stored)
    assert ours <= (1.0 if name in CODEBOOK else 0.95) * ggml


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_every_distribution_alone_is_encoded_about_as_well_as_by_ggml(name):
    """A single block may come out worse; a whole distribution (outliers, zeros, ramps) must not."""
    error = objectives().error
    for case, x, q, values in cases(name, "imatrix"):
        ratio = error(name, x, q, decoded(name, x, q, search="best")) / error(name, x, q, values)
        assert ratio <= (1.15 if case == "pow2" else 1.005), case  # pow2: one block of eight is all of the error


def trained_rows(shared, rows: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(tensor, weights, importance) of the trained model's tensors in codebook_errors.json."""
    from quantcli.loader import open_model
    from quantcli.statistics import imatrix

    names = json.loads((GOLDEN / "codebook_errors.json").read_text())["errors"]["best"]["IQ2_XS"]
    values = imatrix.read(shared / "golden" / "mid-imatrix.gguf")
    return [
        (
            tensor.name,
            np.ascontiguousarray(tensor.reader.read_rows(0, rows)),
            np.ascontiguousarray(values.for_tensor(tensor.name, tensor.shape)[0]),
        )
        for tensor in open_model(shared / "models" / "mid").tensors
        if tensor.name in names
    ]


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_the_error_on_trained_tensors_reaches_the_bar(shared, name):
    stored = json.loads((GOLDEN / "codebook_errors.json").read_text())
    ratios = [
        objectives().error(name, x, q, decoded(name, x, q, search="best")) / stored["errors"]["best"][name][tensor]
        for tensor, x, q in trained_rows(shared, stored["rows"])
    ]
    assert len(ratios) == 5
    assert np.mean(ratios) <= BARS[name] and max(ratios) <= 1.0


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_the_bytes_of_trained_tensors_are_those_of_ggml(shared, name):
    """With the importance of a real calibration; the digests are of ggml's own output."""
    stored = json.loads((GOLDEN / "codebook_errors.json").read_text())
    for tensor, x, q in trained_rows(shared, stored["rows"]):
        found = hashlib.sha256(encode(name, x, q, search="ggml").tobytes()).hexdigest()
        assert found == stored["sha256"][name][tensor], tensor


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_without_importance_the_plain_error_is_below_that_of_ggml_with_a_random_one(name, search):
    """The weights then, 1 or sqrt(sigma2 + x^2), are (nearly) even: better in squares than what favours columns."""
    stored = [case for case in cases(name, "imatrix") if case[0].startswith(("gauss", "student", "trained"))]
    ours = sum(np.square(x - decoded(name, x, search=search)).sum() / np.square(x).sum() for _, x, _, _ in stored)
    ggml = sum(np.square(x - values).sum() / np.square(x).sum() for _, x, _, values in stored)
    assert len(stored) == 6 and ours < ggml


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_values_of_the_format_come_back(name):
    """Decoded random blocks lie on the grid: signs, indices and scales must find their way back."""
    row = tensor_types.by_name(name)
    blocks = golden()[f"decode/{name}/bytes"]
    x = kernels.decode(row.id, blocks, len(blocks), row.block)
    size = np.abs(x).max(axis=1)
    x = np.ascontiguousarray(x[(size > 1e-2) & (size < 1e4)])
    again = decoded(name, x, np.ones(row.block, np.float32), search="best")
    error = np.sqrt(np.square(x - again).sum(axis=1) / np.square(x).sum(axis=1))
    assert len(x) > 15 and np.median(error) < (0.3 if name == "IQ1_S" else 0.1 if name == "IQ1_M" else 0.03)


# ---- robustness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_only_the_ratios_of_the_importance_count(name):
    x, q = tails(), importance()
    expected = encode(name, x, q, search="best")
    for factor in (2.0**-80, 2.0**70):
        assert np.array_equal(encode(name, x, q * np.float32(factor), search="best"), expected)


@pytest.mark.parametrize("name", [*CODEBOOK, *IQ4])
def test_columns_without_importance_are_still_encoded(name):
    """A dead calibration must not erase weights: super-blocks of zeros count as ones, single zeros as very little."""
    x, q = tails(), importance()
    q[256:512] = 0
    q[520:600] = 0
    values = decoded(name, x, q, search="best")
    ones = decoded(name, x, np.ones_like(q), search="best")
    for part in (slice(256, 512), slice(544, 576)):
        relative = np.square(x[:, part] - values[:, part]).sum() / np.square(x[:, part]).sum()
        plain = np.square(x[:, part] - ones[:, part]).sum() / np.square(x[:, part]).sum()
        assert relative < max(1.5 * plain, plain + 0.05)
    assert np.array_equal(values[:, 256:512], ones[:, 256:512])


def test_tables_are_built_once_for_all_threads():
    code = (
        "import numpy as np, hashlib\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from quantcli.ggml import kernels\n"
        "x = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)\n"
        "for kind in (16, 17, 18, 19, 21, 22, 29):\n"
        "    with ThreadPoolExecutor(8) as pool:\n"
        "        found = list(pool.map(lambda _: kernels.encode(kind, x).tobytes(), range(16)))\n"
        "    assert len(set(found)) == 1, kind\n"
        "    assert found[0] == kernels.encode(kind, x, isa='scalar').tobytes(), kind\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- scales of four-bit floats


@pytest.mark.parametrize("name,bar", [("MXFP4", 0.97), ("NVFP4", 0.95)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_better_scales_of_four_bit_floats_are_never_above_those_of_ggml(name, bar, weighted):
    """Block by block, by what is minimised; and clearly below in the mean."""
    row = tensor_types.by_name(name)
    for x in (tails(16), np.random.default_rng(8).normal(0, 0.02, (16, 1024)).astype(np.float32)):
        q = importance() if weighted else None
        errors = {}
        for search in SEARCHES:
            squares = np.square(x.astype(np.float64) - decoded(name, x, q, search=search)) * (1 if q is None else q)
            errors[search] = squares.reshape(-1, row.block).sum(axis=1)
        assert (errors["best"] <= errors["ggml"] * 1.00001).all()
        assert errors["best"].sum() <= bar * errors["ggml"].sum()


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4"])
def test_four_bit_floats_that_lie_on_the_grid_come_back(name):
    row = tensor_types.by_name(name)
    blocks = golden()[f"decode/{name}/bytes"]
    x = kernels.decode(row.id, blocks, len(blocks), row.block)
    x = np.ascontiguousarray(x[np.abs(x).max(axis=1) < 1e30])
    assert np.array_equal(decoded(name, x, search="best"), x) or name == "NVFP4"
    assert np.square(decoded(name, x, search="best") - x).sum() <= np.square(decoded(name, x) - x).sum()


# ---- rules of the types without a search ----------------------------------------------------------------------------


def test_the_exponent_of_mxfp4_is_that_of_a_rounded_logarithm():
    """floor(float32(log2(amax))) - 2 + 127: a few ulps below a power of two round up to it."""
    mantissas = [0x7FFFFF - n for n in (*range(64), 4000)]
    bits = np.array([(exponent << 23) | mantissa for exponent in range(2, 254) for mantissa in mantissas], np.uint32)
    largest = bits.view(np.float32)
    x = np.zeros((len(largest), 32), np.float32)
    x[np.arange(len(x)), np.arange(len(x)) % 32] = largest * np.where(np.arange(len(x)) % 2, -1, 1).astype(np.float32)
    exponent = np.floor(np.log2(largest.astype(np.float64)).astype(np.float32)) - 2 + 127
    assert np.array_equal(encode("MXFP4", x)[:, 0], np.clip(exponent, 0, 252).astype(np.uint8))


@pytest.mark.parametrize("name,scale", [("MXFP4", 1.0), ("NVFP4", 1.75)])
def test_four_bit_floats_take_the_nearest_level_and_the_smaller_one_on_a_tie(name, scale):
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32) * np.float32(scale)
    below = np.array([0, 0.5, 1, 1.5, 2, 3, 4], np.float32) * np.float32(scale)
    above = np.array([0.5, 1, 1.5, 2, 3, 4, 6], np.float32) * np.float32(scale)
    x = np.zeros((6, 64), np.float32)
    x[:, ::16] = 6 * np.float32(scale)
    values = [middles, np.nextafter(middles, np.float32(9)), np.nextafter(middles, np.float32(0))]
    for row, (v, sign) in enumerate((v, sign) for v in values for sign in (1, -1)):
        x[row, 1:8] = sign * v
    expected = np.stack([below, -below, above, -above, below, -below])
    assert np.array_equal(decoded(name, x)[:, 1:8], expected)


def test_ternary_codes_round_half_away_from_zero():
    x = np.zeros((1, 256), np.float32)
    x[0, :6] = 1, 0.5, -0.5, np.nextafter(np.float32(0.5), np.float32(0)), -1, -0.25
    for name in ("TQ1_0", "TQ2_0", "Q2_0"):
        assert decoded(name, x)[0, :6].tolist() == [1, 1, -1, 0, -1, 0]
