"""The steps beside an encoder: fit, assign, parameters, set_parameters. Properties, edges, instruction sets."""

from __future__ import annotations

import numpy as np
import pytest

from quantcli.errors import BadImportance, NoKernel, NonFiniteWeight, ScaleOverflow
from quantcli.ggml import kernels, tensor_types

FIT = [t for t in tensor_types.BY_ID.values() if kernels.can_fit(t.id)]
SET = [t for t in FIT if kernels.can_set_parameters(t.id)]
CODEBOOK = [t for t in FIT if t.name[:3] in ("IQ1", "IQ2", "IQ3")]
SCALAR = [t for t in FIT if t not in CODEBOOK]
EVEN = [t for t in SET if not t.name.startswith("IQ")]
ISAS = [name for name, supported in kernels.instruction_sets() if supported]
ROWS, COLUMNS = 5, 512


def names(types):
    return pytest.mark.parametrize("tensor_type", types, ids=lambda t: t.name)


def weights(seed=0, rows=ROWS, columns=COLUMNS):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)) * np.exp(rng.standard_normal((rows, columns // 16)).repeat(16, 1))
    return x.astype(np.float32)


def edges():
    """Rows of what encoders stumble over: zeros, huge and tiny weights, one sign, single weights, -0."""
    rows = np.zeros((9, COLUMNS), np.float32)
    rows[1] = 1e-38 * np.arange(COLUMNS)
    rows[2] = weights(1, 1)[0] * 5e2
    rows[3] = np.abs(weights(2, 1)[0])
    rows[4] = -np.abs(weights(3, 1)[0])
    rows[5, ::37] = 1.0
    rows[6] = np.where(np.arange(COLUMNS) % 2, -0.0, 1e-7)
    rows[7] = 0.25
    rows[8] = np.linspace(-1, 1, COLUMNS)
    return rows


def importance(seed=5):
    return np.random.default_rng(seed).random(COLUMNS, np.float32) ** 4


def decode(tensor_type, blocks, columns=COLUMNS):
    return kernels.decode(tensor_type.id, blocks, len(blocks), columns)


def distance(x, values):
    return np.abs(x.astype(np.float64) - values.astype(np.float64))


def spread(tensor_type, per_sub_block):
    return per_sub_block.repeat(kernels.layout(tensor_type.id).sub_block, axis=1)


def test_every_quantized_type_has_the_steps():
    assert {t.name for t in FIT} == {
        t.name for t in tensor_types.BY_ID.values() if t.quantized and kernels.can_encode(t.id)
    }
    assert {t.name for t in SET} == {
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
    }  # fmt: skip


@names(FIT)
@pytest.mark.parametrize("search", list(kernels.SEARCHES))
def test_fit_has_the_parameters_of_encode_and_no_codes(tensor_type, search):
    x, q = weights(), importance()
    fitted = kernels.fit(tensor_type.id, x, q, search=search)
    encoded = kernels.encode(tensor_type.id, x, q, search=search)
    assert not (fitted & ~encoded).any() and (fitted != encoded).any()
    for ours, theirs in zip(
        kernels.parameters(tensor_type.id, fitted, ROWS, COLUMNS),
        kernels.parameters(tensor_type.id, encoded, ROWS, COLUMNS),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    other = kernels.fit(tensor_type.id, weights(9), q, search=search)  # every code bit that some block sets
    assert not (fitted & (encoded ^ fitted)).any() and other.shape == fitted.shape


@names(SCALAR)
@pytest.mark.parametrize("search", list(kernels.SEARCHES))
@pytest.mark.parametrize("rows", [weights, edges])
def test_assigned_codes_are_never_farther_than_the_encoder_s(tensor_type, search, rows):
    x = rows()
    encoded = kernels.encode(tensor_type.id, x, search=search)
    assigned = kernels.assign(tensor_type.id, x, encoded.copy())
    assert (distance(x, decode(tensor_type, assigned)) <= distance(x, decode(tensor_type, encoded))).all()
    np.testing.assert_array_equal(
        kernels.assign(tensor_type.id, x, kernels.fit(tensor_type.id, x, search=search)), assigned
    )


@names(EVEN)
def test_assigned_is_the_nearest_of_all_values(tensor_type):
    """Every code of a sub-block is tried, with scales of both signs and minima far away."""
    layout = kernels.layout(tensor_type.id)
    blocks = kernels.encode(tensor_type.id, weights(3))
    scale, minimum = kernels.parameters(tensor_type.id, blocks, ROWS, COLUMNS)
    sign = np.float32(-1)
    for flipped in (False, True):
        if flipped:
            blocks = kernels.set_parameters(tensor_type.id, scale * sign, (minimum - 30) * sign)
            scale, minimum = kernels.parameters(tensor_type.id, blocks, ROWS, COLUMNS)
        x = weights(4)
        values = decode(tensor_type, kernels.assign(tensor_type.id, x, blocks.copy()))
        codes = np.arange(layout.low, layout.high + 1, dtype=np.float32)[:, None, None]
        every = codes * spread(tensor_type, scale) + spread(tensor_type, minimum)
        assert (distance(x, values) == distance(x[None], every).min(axis=0)).all()


@names(SCALAR)
def test_of_two_equally_near_values_the_lower_code_is_taken(tensor_type):
    blocks = kernels.encode(tensor_type.id, weights(6))
    levels = decode(tensor_type, blocks)
    first, second = kernels.assign(tensor_type.id, levels, blocks.copy()), decode(tensor_type, blocks)
    np.testing.assert_array_equal(decode(tensor_type, first), second)
    if tensor_type not in EVEN or kernels.layout(tensor_type.id).minima:
        return
    scale, _ = kernels.parameters(tensor_type.id, blocks, ROWS, COLUMNS)
    middle = spread(tensor_type, scale) * np.float32(0.5)  # between codes 0 and 1
    np.testing.assert_array_equal(
        decode(tensor_type, kernels.assign(tensor_type.id, middle, blocks.copy())), np.zeros((ROWS, COLUMNS))
    )


@names(FIT)
@pytest.mark.parametrize("rows", [weights, edges])
def test_what_a_block_decodes_to_is_assigned_again(tensor_type, rows):
    blocks = kernels.encode(tensor_type.id, rows())
    values = decode(tensor_type, blocks)
    np.testing.assert_array_equal(decode(tensor_type, kernels.assign(tensor_type.id, values, blocks.copy())), values)


@names(FIT)
def test_old_codes_do_not_matter(tensor_type):
    x = weights()
    encoded = kernels.encode(tensor_type.id, weights(8))
    cleared = kernels.fit(tensor_type.id, weights(8))
    np.testing.assert_array_equal(
        kernels.assign(tensor_type.id, x, encoded), kernels.assign(tensor_type.id, x, cleared)
    )


@names(SET)
def test_stored_parameters_come_back(tensor_type):
    blocks = kernels.encode(tensor_type.id, weights(), search="best")
    scale, minimum = kernels.parameters(tensor_type.id, blocks, ROWS, COLUMNS)
    stored = kernels.set_parameters(tensor_type.id, scale, minimum)
    found = kernels.parameters(tensor_type.id, stored, ROWS, COLUMNS)
    if tensor_type.kind == "legacy" or tensor_type.name == "IQ4_NL":
        np.testing.assert_array_equal(stored, kernels.fit(tensor_type.id, weights(), search="best"))
    for asked, got in zip((scale, minimum), found, strict=True):
        step = np.abs(asked).max(axis=1, keepdims=True) / 15  # of the coarsest coded scales, Q2_K's
        assert (np.abs(asked - got) <= 0.51 * step).all()
    again = kernels.set_parameters(tensor_type.id, *found)
    for first, second in zip(found, kernels.parameters(tensor_type.id, again, ROWS, COLUMNS), strict=True):
        np.testing.assert_allclose(first, second, rtol=2e-3, atol=np.abs(first).max() * 2e-3)


def test_coded_scales_follow_the_largest_one():
    q4_k, q6_k = tensor_types.by_name("Q4_K").id, tensor_types.by_name("Q6_K").id
    scale = np.array([[63, 31, 0, 1, 5, -3, 62.4, 2]], np.float32)
    minimum = np.array([[-63, 0, -1, -2, 5, -7, -8, -9]], np.float32)
    got, low = kernels.parameters(q4_k, kernels.set_parameters(q4_k, scale, minimum), 1, 256)
    assert got.tolist() == [[63, 31, 0, 1, 5, 0, 62, 2]] and low.tolist() == [[-63, 0, -1, -2, 0, -7, -8, -9]]
    scale = np.array([[-128, 127, 0, 0.5, 1.5, *range(11)]], np.float32)
    got, low = kernels.parameters(q6_k, kernels.set_parameters(q6_k, scale), 1, 256)
    assert got.tolist() == [[-128, 127, 0, 0, 2, *range(11)]] and not low.any()


@names(FIT)
def test_every_instruction_set_gives_the_same(tensor_type):
    q = importance()
    for x in (weights(11), edges()[[0, 1, 3, 4, 5, 7, 8]], weights(12, rows=19)):
        results = {}
        for isa in ISAS:
            fitted = kernels.fit(tensor_type.id, x, q, search="best", isa=isa)
            plain = kernels.assign(tensor_type.id, x, fitted.copy(), isa=isa)
            weighted = kernels.assign(tensor_type.id, x, fitted.copy(), q, isa=isa)
            parameters = kernels.parameters(tensor_type.id, plain, len(x), COLUMNS, isa=isa)
            parts = [fitted, plain, weighted, *parameters]
            if kernels.can_set_parameters(tensor_type.id):
                parts.append(kernels.set_parameters(tensor_type.id, *parameters, isa=isa))
            results[isa] = b"".join(part.tobytes() for part in parts)
        assert len(set(results.values())) == 1, [isa for isa in ISAS if results[isa] != results["scalar"]]


@names(FIT)
def test_edges(tensor_type):
    zeros = np.zeros((2, COLUMNS), np.float32)
    fitted = kernels.fit(tensor_type.id, zeros)
    np.testing.assert_array_equal(decode(tensor_type, kernels.assign(tensor_type.id, zeros, fitted)), zeros)
    if tensor_type.kind != "microscaling":
        with pytest.raises(ScaleOverflow):
            kernels.fit(tensor_type.id, zeros + np.float32(1e9))
    huge = np.full((2, COLUMNS), 3e38, np.float32)
    blocks = kernels.encode(tensor_type.id, weights(rows=2))
    most = decode(tensor_type, kernels.assign(tensor_type.id, huge, blocks.copy()))
    least = decode(tensor_type, kernels.assign(tensor_type.id, -huge, blocks.copy()))
    assert np.isfinite(most).all() and (most >= least).all()
    denormal = np.full((2, COLUMNS), 1e-45, np.float32)
    assert np.isfinite(decode(tensor_type, kernels.assign(tensor_type.id, denormal, blocks.copy()))).all()


def test_refusals():
    q4_0, q4_1, f16 = (tensor_types.by_name(name).id for name in ("Q4_0", "Q4_1", "F16"))
    x = weights()
    blocks = kernels.fit(q4_0, x)
    with pytest.raises(NoKernel):
        kernels.fit(f16, x)
    with pytest.raises(NoKernel):
        kernels.assign(f16, x, np.zeros((ROWS, 2 * COLUMNS), np.uint8))
    with pytest.raises(NoKernel):
        kernels.set_parameters(f16, x)
    with pytest.raises(NoKernel):
        kernels.set_parameters(q4_1, np.ones((1, 4), np.float32))
    with pytest.raises(NoKernel):
        kernels.parameters(f16, blocks, 1, 16)
    bad = x.copy()
    bad[3, 7] = np.nan
    with pytest.raises(NonFiniteWeight) as caught:
        kernels.assign(q4_0, bad, blocks)
    assert (caught.value.row, caught.value.column) == (3, 7)
    with pytest.raises(BadImportance):
        kernels.assign(q4_0, x, blocks, np.full(COLUMNS, -1, np.float32))
    broken = blocks.copy()
    broken[2, 18:20] = 0xFF
    with pytest.raises(NonFiniteWeight) as caught:
        kernels.assign(q4_0, x, broken)
    assert (caught.value.row, caught.value.column) == (2, 32)
    scale = np.ones((2, 4), np.float32)
    scale[1, 2] = 1e6
    with pytest.raises(ScaleOverflow) as caught:
        kernels.set_parameters(q4_0, scale)
    assert (caught.value.row, caught.value.column) == (1, 64)
    scale[0, 3] = np.inf
    with pytest.raises(NonFiniteWeight) as caught:
        kernels.set_parameters(q4_0, scale)
    assert (caught.value.row, caught.value.column) == (0, 96)


def test_arrays_are_checked():
    q4_0 = tensor_types.by_name("Q4_0").id
    x = weights()
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.fit(q4_0, x.astype(np.float64))
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.assign(q4_0, x, np.zeros((ROWS, 10), np.uint8))
    with pytest.raises(ValueError, match="bytes where"):
        kernels.parameters(q4_0, b"12345", 1, 32)
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.set_parameters(q4_0, np.ones((4, 8), np.float32).T)
    with pytest.raises(ValueError, match="C-contiguous"):
        kernels.set_parameters(q4_0, np.ones((4, 8), np.float32), np.ones((4, 7), np.float32))
