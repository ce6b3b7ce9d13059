"""`--search best`: by what it minimises never worse than ggml's own search, and the same bytes everywhere."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from quantcli.errors import ScaleOverflow
from quantcli.ggml import kernels, tensor_types

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
# cases of blocks.npz that look like weights, with outlier columns, tiny and large rows, sparse rows, zero importance
CASES = (
    "gauss256",
    "gauss512",
    "gauss1024",
    "student",
    "outlier",
    "scale",
    "sparse",
    "zeroimp",
    "trained512",
    "trained1024",
)
EXACT = 1e-6  # relative error below which blocks are as good as exact (weights that were stored as Q4_1 before)
ISAS = [name for name, supported in kernels.instruction_sets() if supported]


@pytest.fixture(scope="module")
def objectives(root):
    """scripts/objectives.py."""
    sys.path.insert(0, str(root / "scripts"))
    try:
        import objectives
    finally:
        sys.path.pop(0)
    return objectives


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "blocks.npz") as stored:
        return {case: (stored[f"{case}/input"], stored[f"{case}/importance"]) for case in CASES}


def relative_error(objectives, name, x, importance, search):
    type_id = tensor_types.by_name(name).id
    decoded = kernels.decode(type_id, kernels.encode(type_id, x, importance, search=search), *x.shape)
    total = float((objectives.importance_alone(name, x, importance) * x.astype(np.float64) ** 2).sum())
    return objectives.error(name, x, importance, decoded) / total


@pytest.mark.parametrize("kind", ["imatrix", "plain"])
@pytest.mark.parametrize("name", TYPES)
def test_best_is_never_worse_than_ggml(objectives, golden, name, kind):
    for case, (x, importance) in golden.items():
        weights = importance if kind == "imatrix" else None
        best = relative_error(objectives, name, x, weights, "best")
        ggml = relative_error(objectives, name, x, weights, "ggml")
        assert best <= max(ggml * (1 + 1e-6), EXACT), case


@pytest.mark.parametrize("name", TYPES)
def test_best_is_better_on_average(objectives, golden, name):
    ratios = [
        relative_error(objectives, name, *golden[case], "best")
        / relative_error(objectives, name, *golden[case], "ggml")
        for case in ("gauss512", "gauss1024", "student")
    ]
    bars = {"Q4_0": 1.0, "Q5_0": 1.0, "Q3_K": 1.0, "Q6_K": 0.93}
    assert np.mean(ratios) < bars.get(name, 0.97)


SEARCHED = (*TYPES, "IQ4_NL", "IQ4_XS", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


@pytest.mark.parametrize("name", SEARCHED)
def test_best_takes_no_importance_for_an_equal_one(name):
    type_id = tensor_types.by_name(name).id
    x = (np.random.default_rng(6).standard_t(4, (9, 512)) * 0.02).astype(np.float32)
    without = kernels.encode(type_id, x, None, search="best")
    for size in (1.0, 0.125):
        assert kernels.encode(type_id, x, np.full(512, size, np.float32), search="best").tobytes() == without.tobytes()


@pytest.mark.parametrize("name", SEARCHED)
def test_best_keeps_blocks_that_the_calibration_never_touched(name):
    """Their columns count alike: the loss is about that of the other columns."""
    type_id = tensor_types.by_name(name).id
    generator = np.random.default_rng(13)
    x = (generator.normal(0, 0.02, (17, 1024))).astype(np.float32)
    importance = generator.lognormal(size=1024).astype(np.float32)
    importance[256:512] = 0
    for values in (importance, np.zeros_like(importance)):
        difference = x - kernels.decode(type_id, kernels.encode(type_id, x, values, search="best"), *x.shape)
        lost = (np.square(difference[:, 256:512]).mean(), np.square(difference[:, 512:]).mean())
        assert lost[0] < 1.5 * lost[1] and lost[0] < 0.3 * np.square(x).mean()


@pytest.mark.parametrize("name", SEARCHED)
def test_the_searches_are_told_apart_by_what_they_minimise(objectives, name):
    """`best` is better by the importance alone."""
    type_id = tensor_types.by_name(name).id
    generator = np.random.default_rng(12)
    x = (generator.standard_t(4, (64, 1024)) * 0.02).astype(np.float32)
    importance = generator.lognormal(size=1024).astype(np.float32)
    best, ggml = (
        kernels.decode(type_id, kernels.encode(type_id, x, importance, search=search), *x.shape)
        for search in ("best", "ggml")
    )
    assert objectives.error(name, x, importance, best, "best") < objectives.error(name, x, importance, ggml, "best")


def outlier_columns(generator, rows, columns):
    """Weights and importance whose error a few columns decide, as in the down projections of trained models."""
    x = generator.normal(0, 0.02, (rows, columns)).astype(np.float32)
    importance = np.exp(generator.normal(0, 1, columns)).astype(np.float32)
    importance[generator.integers(0, columns, 3)] *= 1000
    return x, importance


@pytest.mark.parametrize("name", TYPES)
def test_best_survives_dominating_columns(objectives, name):
    x, importance = outlier_columns(np.random.default_rng(7), 64, 1024)
    best = relative_error(objectives, name, x, importance, "best")
    assert best <= relative_error(objectives, name, x, importance, "ggml") * (1 + 1e-6)


@pytest.mark.parametrize("name", TYPES)
def test_same_bytes_on_every_instruction_set_and_in_any_slabs(name):
    type_id = tensor_types.by_name(name).id
    generator = np.random.default_rng(8)
    x = np.concatenate(
        [
            generator.normal(0, 0.02, (23, 768)),
            generator.standard_t(2, (12, 768)) * 0.01,
            generator.normal(0, 0.02, (6, 768)) * (generator.random((6, 768)) < 0.05),
            np.zeros((2, 768)),
        ]
    )
    x = np.ascontiguousarray(x.astype(np.float32))
    importance = np.exp(generator.normal(0, 1, 768)).astype(np.float32)
    importance[generator.integers(0, 768, 40)] = 0
    for weights in (importance, None):
        whole = kernels.encode(type_id, x, weights, search="best", isa="scalar")
        for isa in ISAS:
            cuts = (0, 1, 6, 21, 22, len(x))
            parts = [
                kernels.encode(type_id, x[a:b], weights, search="best", isa=isa) for a, b in itertools.pairwise(cuts)
            ]
            assert np.concatenate(parts).tobytes() == whole.tobytes(), isa


def edge_rows():
    """Named patterns of 4 x 512 weights that a search may stumble over."""
    generator = np.random.default_rng(9)
    normal = generator.normal(0, 0.02, (4, 512))
    one = np.zeros((4, 512))
    one[:, 77] = 0.25
    return {
        "zeros": np.zeros((4, 512)),
        "negative zeros": -np.zeros((4, 512)),
        "constant": np.full((4, 512), 0.013),
        "negative constant": np.full((4, 512), -0.013),
        "positive": abs(normal),
        "negative": -abs(normal),
        "one weight": one,
        "far above": 1 + normal / 20,
        "far below": -1 + normal / 20,
        "two values": np.where(normal > 0, 0.25, -0.5),
        "denormal": normal * 1e-38,
        "tiny": normal * 1e-15,
        "subnormal scale": normal * 1e-4,
        "large": normal * 1e5,
        "huge": normal * 1e30,
        "largest": np.sign(normal) * 3.4e38,
        "ramp": np.linspace(-1, 1, 2048).reshape(4, 512),
        "sparse": normal * (generator.random((4, 512)) < 0.02),
        "mixed": normal * np.exp(generator.normal(0, 6, (4, 512))),
        "mostly denormal": np.where(generator.random((4, 512)) < 0.9, 1e-40, normal),
    }


@pytest.mark.parametrize("name", TYPES)
def test_edges_give_finite_blocks_or_an_overflow(name):
    type_id = tensor_types.by_name(name).id
    generator = np.random.default_rng(10)
    importances = [
        None,
        np.exp(generator.normal(0, 1, 512)),
        np.zeros(512),
        np.where(generator.random(512) < 0.9, 0, 1),
        np.full(512, 1e-38),
        np.full(512, 1e37),
    ]
    for pattern, rows in edge_rows().items():
        x = np.ascontiguousarray(rows.astype(np.float32))
        for index, importance in enumerate(importances):
            weights = None if importance is None else importance.astype(np.float32)
            try:
                raw = kernels.encode(type_id, x, weights, search="best")
            except ScaleOverflow:
                assert abs(x).max() > 60000, (pattern, index)
                continue
            decoded = kernels.decode(type_id, raw, *x.shape)
            assert np.isfinite(decoded).all(), (pattern, index)
            assert float(abs(decoded).max()) <= 2.5 * float(abs(x).max()) + 1e-4, (pattern, index)
            if not x.any():
                assert not decoded.any(), (pattern, index)
