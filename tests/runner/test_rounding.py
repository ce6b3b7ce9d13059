"""Rounded activations against ggml's block formulas, and products with them."""

from __future__ import annotations

import numpy
import pytest

from quantcli.ggml import kernels, tensor_types
from quantcli.runner.operations import Operations, erf, gelu, softmax, top_indices
from quantcli.runner.rounding import partner, rounded
from quantcli.runner.weights import PackedMatrix


def rows(seed: int = 0, columns: int = 512) -> numpy.ndarray:
    x = numpy.random.default_rng(seed).standard_normal((6, columns)).astype(numpy.float32)
    x[1] = 0
    x[2, 7] = -90  # an outlier, negative
    x[3, :256] = 0  # a block of zeros
    return x


def test_q8_0_is_what_the_encoder_writes() -> None:
    """Same codes and scales as the Q8_0 type of files (ties aside, which these numbers do not have)."""
    x, kind = rows(), tensor_types.BY_NAME["Q8_0"]
    assert numpy.array_equal(
        rounded(x, tensor_types.BY_NAME["Q4_0"], "q8"), kernels.decode(kind.id, kernels.encode(kind.id, x), *x.shape)
    )


def test_q8_k_scales_by_the_signed_extreme_of_256() -> None:
    x = rows()
    found = rounded(x, tensor_types.BY_NAME["Q4_K"], "q8")
    for block, expected in zip(x.reshape(-1, 256), found.reshape(-1, 256), strict=True):
        extreme = block[numpy.abs(block).argmax()]
        if extreme == 0:
            assert not expected.any()
            continue
        codes = [min(127, round(float(v) * (-127 / float(extreme)))) for v in block]
        assert numpy.allclose(expected, numpy.array(codes) * (float(extreme) / -127), rtol=1e-6, atol=1e-9)
        assert numpy.isclose(expected[numpy.abs(block).argmax()], extreme)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Q4_1", "Q8_1"),
        ("IQ4_NL", "Q8_0"),
        ("IQ4_XS", "Q8_K"),
        ("TQ2_0", "Q8_K"),
        ("BF16", "BF16"),
        ("F32", "F32"),
        ("MXFP4", "Q8_0"),
        ("IQ1_M", "Q8_K"),
    ],
)
def test_partners(name: str, expected: str) -> None:
    assert partner(tensor_types.BY_NAME[name]) == expected


def test_int16_is_far_more_exact_and_float_changes_nothing() -> None:
    x, kind = rows(), tensor_types.BY_NAME["Q4_K"]
    q8, int16 = (numpy.abs(rounded(x, kind, mode) - x).max() for mode in ("q8", "int16"))
    assert 0 < int16 < q8 / 100
    assert rounded(x, kind, "float") is x
    assert rounded(x, tensor_types.BY_NAME["F32"], "q8") is x
    brain = rounded(x, tensor_types.BY_NAME["BF16"], "q8")
    assert 0 < numpy.abs(brain - x).max() <= 90 / 256


def test_products_decode_by_slabs_and_add_biases() -> None:
    random = numpy.random.default_rng(4)
    weights = random.standard_normal((2, 70, 64)).astype(numpy.float32)  # two experts
    kind = tensor_types.BY_NAME["F16"]
    raw = kernels.encode(kind.id, weights.reshape(-1, 64)).reshape(2, 70, -1)
    bias = random.standard_normal((2, 70)).astype(numpy.float32)
    matrix = PackedMatrix("m", kind, 2, 70, 64, raw, bias)
    x = random.standard_normal((5, 64)).astype(numpy.float32)
    chosen = numpy.array([[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]])
    exact = weights.astype(numpy.float16).astype(numpy.float32)
    expected = numpy.stack([[exact[e] @ x[t] + bias[e] for e in chosen[t]] for t in range(5)])
    assert numpy.allclose(Operations().multiply_experts(x, chosen, matrix)[0], expected, atol=1e-4)
    slots = random.standard_normal((5, 2, 64)).astype(numpy.float32)
    expected = numpy.stack([[exact[e] @ slots[t, s] + bias[e] for s, e in enumerate(chosen[t])] for t in range(5)])
    assert numpy.allclose(Operations().multiply_experts(slots, chosen, matrix)[0], expected, atol=1e-4)
    whole = PackedMatrix("m", kind, 1, 70, 64, raw[:1], None)
    assert numpy.allclose(Operations().multiply(x, whole, whole)[1], x @ exact[0].T, atol=1e-4)
    assert numpy.array_equal(whole.take(numpy.array([3, 3, 69])), exact[0][[3, 3, 69]])


def test_functions() -> None:
    from math import erf as true

    x = numpy.linspace(-5, 5, 401, dtype=numpy.float32)
    assert numpy.abs(erf(x) - numpy.array([true(v) for v in x])).max() < 3e-7
    assert numpy.allclose(gelu(numpy.array([0.0, 1.0], numpy.float32)), [0, 0.8413447], atol=1e-6)
    scores = numpy.array([[1.0, 2.0, -numpy.inf]], numpy.float32)
    with_sink = scores.copy()
    softmax(scores)
    softmax(with_sink, numpy.array([[2.0]], numpy.float32))
    assert numpy.allclose(scores, [[0.26894143, 0.7310586, 0]], atol=1e-6)
    assert numpy.allclose(with_sink, scores * (1 + numpy.e) / (1 + 2 * numpy.e), atol=1e-6)
    assert top_indices(numpy.array([[1.0, 3.0, 3.0, 2.0]]), 3).tolist() == [[1, 2, 3]]


def test_window_and_cap_in_attention() -> None:
    """Against the definition, position by position."""
    random = numpy.random.default_rng(5)
    q, k, v = (random.standard_normal(shape).astype(numpy.float32) for shape in ((7, 4, 8), (2, 12, 8), (2, 12, 8)))
    found = Operations().attend(q, k, v, scale=0.4, start=5, window=3, cap=2.0)
    for i in range(7):
        for head in range(4):
            keys = range(max(0, i + 5 - 2), i + 5 + 1)
            scores = numpy.array([2 * numpy.tanh(0.4 * (q[i, head] @ k[head // 2, j]) / 2) for j in keys])
            shares = numpy.exp(scores - scores.max())
            expected = (shares[:, None] * v[head // 2, list(keys)]).sum(axis=0) / shares.sum()
            assert numpy.allclose(found[i, head], expected, atol=1e-5)
