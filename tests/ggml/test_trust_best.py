"""`--search best` does not end above `--search ggml` by what it minimises: trust_best.py on some rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quantcli.errors import ScaleOverflow
from quantcli.ggml import kernels, tensor_types


@pytest.fixture(scope="module")
def trust(root):
    sys.path.insert(0, str(root / "scripts"))
    try:
        import trust_best
    finally:
        sys.path.pop(0)
    return trust_best


def test_every_type_with_a_ggml_search_is_meant(trust):
    quantized = {row.name for row in tensor_types.BY_ID.values() if row.quantized}
    assert set(trust.TYPES) == {name for name in quantized if kernels.can_encode(tensor_types.by_name(name).id, "ggml")}


@pytest.mark.parametrize("seed", [1, 2])
def test_best_never_ends_above_ggml(trust, seed):
    results = trust.trust_best(4000, seed)
    assert sum(result.cases for result in results) >= 4000
    for result in results:
        assert not result.above, f"{result.type}: {result.worst} at {result.where}"
        assert not result.blocks_above, f"{result.type}: {result.blocks_above} single blocks"
        assert result.blocks > 200


@pytest.mark.parametrize(
    "name",
    [
        *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
        *("IQ1_S", "IQ2_XS", "IQ3_S", "NVFP4"),
    ],
)
def test_the_comparison_gives_the_same_bytes_everywhere(trust, name):
    """On every instruction set, and however the rows are cut: what is flagged does not depend on neighbours."""
    type_id = tensor_types.by_name(name).id
    for pattern, x, importance in trust.matrices(19, np.random.default_rng(3)):
        try:
            whole = kernels.encode(type_id, x, importance, search="best", isa="scalar")
        except ScaleOverflow:
            continue
        for isa in (isa for isa, supported in kernels.instruction_sets() if supported and isa != "scalar"):
            parts = [kernels.encode(type_id, x[a:b], importance, search="best", isa=isa) for a, b in ((0, 3), (3, 19))]
            assert np.array_equal(np.concatenate(parts), whole), (pattern, isa)


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "IQ4_NL"])
def test_rows_wider_than_what_is_weighed_at_once(name):
    """The error of 512 blocks is weighed against each other; wider rows are cut there."""
    generator = np.random.default_rng(5)
    x = (generator.standard_t(3, (9, 32 * (512 + 40))) * 0.02).astype(np.float32)
    importance = np.exp(generator.normal(0, 3, x.shape[1])).astype(np.float32)
    type_id = tensor_types.by_name(name).id
    whole = kernels.encode(type_id, x, importance, search="best", isa="scalar")
    for isa in (isa for isa, supported in kernels.instruction_sets() if supported):
        parts = [kernels.encode(type_id, x[a:b], importance, search="best", isa=isa) for a, b in ((0, 8), (8, 9))]
        assert np.array_equal(np.concatenate(parts), whole), isa


def test_a_candidate_that_fits_replaces_a_scale_that_overflows():
    """Importance on small weights alone: ggml's scale is theirs, and that of the large one does not count."""
    x = np.full((1, 256), 0.01, np.float32)
    x[0, ::3], x[0, 7] = -0.03, 3e9
    importance = np.ones(256, np.float32)
    importance[7] = 0
    for name in ("Q3_K", "Q6_K"):
        row = tensor_types.by_name(name)
        raw = kernels.encode(row.id, x, importance, search="best")
        assert np.isfinite(kernels.decode(row.id, raw, 1, 256)).all()
