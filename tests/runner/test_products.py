"""The runner's C kernels against float64 numpy, on every instruction set of this machine."""

from __future__ import annotations

import numpy
import pytest

from quantcli.errors import NoKernel, QuantcliError
from quantcli.ggml import kernels, tensor_types
from quantcli.runner import positions
from quantcli.runner.matrix_products import can_multiply
from quantcli.runner.operations import ACTIVATIONS, Operations
from quantcli.runner.positions import Distances, alibi
from quantcli.runner.products import Products
from quantcli.runner.rounding import rounded
from quantcli.runner.weights import PackedMatrix

SETS = [name for name, supported in kernels.instruction_sets() if supported and name != "emu16"]
TYPES = [kind for kind in tensor_types.BY_NAME.values() if can_multiply(kind.id)]
# |result - exact| <= LIMIT * sum |activation * weight|: float32 sums of 519 or 512 products
LIMIT = 2e-6
# llama.cpp keeps sums of Q8_1's blocks in half precision (2^-11 of the minimum's part)
HALF_SUMS = 2.0**-10


def packed(
    kind: tensor_types.TensorType, rows: int, columns: int, seed: int = 0
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(blocks, their values in float64) of random weights."""
    weights = numpy.random.default_rng(seed).standard_normal((rows, columns)).astype(numpy.float32) * 0.05
    raw = kernels.encode(kind.id, weights, numpy.ones(columns, numpy.float32))
    return raw, kernels.decode(kind.id, raw, rows, columns).astype(numpy.float64)


def inputs(tokens: int, columns: int, seed: int = 1) -> numpy.ndarray:
    """Activations with a few large columns, as models have them."""
    x = numpy.random.default_rng(seed).standard_normal((tokens, columns)).astype(numpy.float32)
    x[:, :7] *= 30
    return x


def test_all_types_multiply():
    expected = {kind.name for kind in tensor_types.BY_NAME.values() if kind.kind not in ("integer", "activation")} - {
        "F64"
    }
    assert {kind.name for kind in TYPES} == expected


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("mode", ACTIVATIONS)
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_products(kind, mode, isa):
    """Every type, odd shapes; three threads give what one gives."""
    columns = 519 if kind.block == 1 else 512 if kind.block > 64 else 576
    one, three = Products(mode, 1, isa), Products(mode, 3, isa)
    limit = HALF_SUMS if mode == "q8" and kind.name in ("Q4_1", "Q5_1") else LIMIT
    raw, weights = packed(kind, 33, columns)
    for tokens in (1, 3, 17):
        x = inputs(tokens, columns)
        seen = one.rounded(kind.id, x).astype(numpy.float64)
        for rows in (1, 5, 33):
            result = one.product(kind.id, raw, rows, x)
            bound = limit * (numpy.abs(seen) @ numpy.abs(weights[:rows]).T)
            assert (numpy.abs(result - seen @ weights[:rows].T) <= bound).all(), (tokens, rows)
            assert numpy.array_equal(result, three.product(kind.id, raw, rows, x)), (tokens, rows)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q4_K", "F16", "BF16"])
def test_rounding_of_activations(name, isa):
    """The partner types are rounded as the numpy reference has them, zeros and ties included."""
    kind = tensor_types.BY_NAME[name]
    x = inputs(3, 512)
    x[0, :256] = 0
    x[1, 32:64] = numpy.arange(-16, 16) / 2 * 127
    x[2, 300] = -x[2, 256:512].max() * 2
    x[2, 301] = -x[2, 300]
    assert numpy.array_equal(Products("q8", 1, isa).rounded(kind.id, x), rounded(x, kind, "q8"))


@pytest.mark.parametrize("isa", SETS)
def test_int16_is_far_more_exact_than_q8(isa):
    kind = tensor_types.BY_NAME["Q4_K"]
    raw, weights = packed(kind, 64, 1024)
    x = numpy.random.default_rng(3).standard_normal((8, 1024)).astype(numpy.float32)
    exact = x.astype(numpy.float64) @ weights.T

    def error(mode: str) -> float:
        return float(
            numpy.linalg.norm(Products(mode, 1, isa).product(kind.id, raw, 64, x) - exact) / numpy.linalg.norm(exact)
        )

    assert 1e-3 < error("q8") < 2e-2
    assert error("int16") < 1e-4
    assert error("float") < 2e-6


@pytest.mark.parametrize("isa", SETS)
def test_tokens_do_not_depend_on_their_neighbours(isa):
    """Batches of more than eight tokens give a token the same bits, whatever their length: groups, chunks and panels
    leave no trace; so do those of up to four, which are multiplied otherwise."""
    kind = tensor_types.BY_NAME["Q6_K"]
    raw, _ = packed(kind, 200, 512)
    x = inputs(150, 512)
    for threads in (1, 4):
        products = Products("q8", threads, isa)
        full = products.product(kind.id, raw, 200, x)
        few = products.product(kind.id, raw, 200, x[:4])
        for start, stop in ((0, 9), (40, 59), (141, 150)):
            assert numpy.array_equal(products.product(kind.id, raw, 200, x[start:stop]), full[start:stop])
        for start, stop in ((0, 1), (2, 4), (1, 4)):
            assert numpy.array_equal(products.product(kind.id, raw, 200, x[start:stop]), few[start:stop])
        numpy.testing.assert_allclose(few, full[:4], rtol=0, atol=1e-5 * numpy.abs(full).max())


def test_several_weights_and_biases_in_one_call():
    products, x = Products("q8", 2), inputs(6, 256)
    matrices = []
    for number, name in enumerate(("Q4_K", "Q8_0", "Q4_1", "F16", "Q6_K")):
        raw, _ = packed(tensor_types.BY_NAME[name], 40, 256, seed=number)
        bias = numpy.full((1, 40), number, numpy.float32) if number % 2 else None
        matrices.append(PackedMatrix(name, tensor_types.BY_NAME[name], 1, 40, 256, raw[None], bias))
    for matrix, result in zip(matrices, products.multiply(x, *matrices), strict=True):
        alone = products.product(matrix.type.id, matrix.data[0], 40, x)
        assert numpy.array_equal(result, alone if matrix.bias is None else alone + matrix.bias[0])


@pytest.mark.parametrize("shared", [True, False])
def test_experts(shared):
    """As the numpy reference routes them, one row per token or one per token and expert."""
    kind, random = tensor_types.BY_NAME["Q8_0"], numpy.random.default_rng(5)
    raw, _ = packed(kind, 6 * 24, 64)
    bias = random.standard_normal((6, 24)).astype(numpy.float32)
    matrix = PackedMatrix("e", kind, 6, 24, 64, raw.reshape(6, 24, -1), bias)
    chosen = numpy.stack([random.permutation(6)[:2] for _ in range(9)])
    x = random.standard_normal((9, 64) if shared else (9, 2, 64)).astype(numpy.float32)
    for result, expected in zip(
        Products("float", 2).multiply_experts(x, chosen, matrix, matrix),
        Operations("float").multiply_experts(x, chosen, matrix, matrix),
        strict=True,
    ):
        numpy.testing.assert_allclose(result, expected, atol=1e-5)


def test_mistakes_of_callers_are_refused():
    products, x = Products("q8", 1), inputs(2, 256)
    raw, _ = packed(tensor_types.BY_NAME["Q4_K"], 4, 256)
    with pytest.raises(ValueError):
        products.product(12, raw, 5, x)
    with pytest.raises(ValueError):
        products.product(12, raw, 4, x.astype(numpy.float64))
    with pytest.raises(ValueError):
        products.product(12, raw, 4, x, numpy.empty((2, 3), numpy.float32))
    with pytest.raises(NoKernel):
        products.product(28, numpy.zeros((1, 8 * 256), numpy.uint8), 1, x)


# ---- attention

ATTENTION = {
    "one token": {"tokens": 1, "start": 40, "heads": 4, "kv_heads": 2, "width": 64, "value": 64},
    "odd widths": {"tokens": 7, "start": 5, "heads": 6, "kv_heads": 2, "width": 77, "value": 45},
    "window": {"tokens": 70, "start": 30, "heads": 4, "kv_heads": 4, "width": 64, "value": 64, "window": 40},
    "cap": {"tokens": 33, "start": 64, "heads": 8, "kv_heads": 1, "width": 96, "value": 40, "cap": 20.0},
    "sinks": {"tokens": 100, "start": 0, "heads": 9, "kv_heads": 3, "width": 64, "value": 64, "sinks": True},
    "short window": {"tokens": 40, "start": 3, "heads": 2, "kv_heads": 1, "width": 32, "value": 32, "window": 1},
    "distances": {"tokens": 33, "start": 9, "heads": 6, "kv_heads": 3, "width": 24, "value": 40, "reach": 0},
    "distances of one token": {
        "tokens": 1, "start": 40, "heads": 4, "kv_heads": 2, "width": 64, "value": 64, "window": 20, "reach": 7,
    },
}  # fmt: skip


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION.keys())
def test_attention(case, isa, half):
    random = numpy.random.default_rng(7)
    tokens, start, heads, kv_heads = (case[name] for name in ("tokens", "start", "heads", "kv_heads"))
    q = random.standard_normal((tokens, heads, case["width"])).astype(numpy.float32) * 2
    # a cache with room left and positions before heads: what the kernel sees is strided
    store = [
        random.standard_normal((start + tokens + 9, kv_heads, case[name])).astype(
            numpy.float16 if half else numpy.float32
        )
        for name in ("width", "value")
    ]
    k, v = (part.transpose(1, 0, 2)[:, : start + tokens] for part in store)
    sinks = random.standard_normal(heads).astype(numpy.float32) * 3 if case.get("sinks") else None
    options = {
        "scale": case["width"] ** -0.5,
        "start": start,
        "window": case.get("window", 0),
        "cap": case.get("cap", 0.0),
        "sinks": sinks,
    }
    if "reach" in case:  # of the table of distances, beyond what these positions need
        table = random.standard_normal((heads, start + tokens + case["reach"])).astype(numpy.float32)
        options["distances"] = Distances(table, start + tokens - 1)
    expected = Operations().attend(*(part.astype(numpy.float64) for part in (q, k, v)), **options)
    result = Products("float", 1, isa).attend(q, k, v, **options)
    numpy.testing.assert_allclose(result, expected, atol=3e-6)
    assert numpy.array_equal(result, Products("float", 3, isa).attend(q, k, v, **options))


def test_linear_biases():
    """The slopes of the paper, also for a number of heads that is no power of two; by distance."""
    assert numpy.array_equal(alibi(8, 8, 3).table[:, :2], numpy.outer(0.5 ** numpy.arange(1, 9), [-2, -1]))
    slopes = -alibi(12, 8, 2).table[:, 0]
    assert numpy.allclose(slopes[:8], 0.5 ** numpy.arange(1, 9)) and numpy.allclose(
        slopes[8:], 0.5 ** (numpy.arange(4) + 0.5)
    )
    found = alibi(2, 8, 10).between(4, 2, 3, 6)
    assert numpy.array_equal(found[0, :, :2] / 2**-4, [[-1, 0], [-2, -1]])


def test_attention_of_several_sequences():
    random, products = numpy.random.default_rng(8), Products("float", 2)
    q = random.standard_normal((3, 20, 4, 32)).astype(numpy.float32)
    k, v = (random.standard_normal((3, 2, 20, 32)).astype(numpy.float32) for _ in range(2))
    together = products.attend_all(q, k, v, scale=0.2, start=0)
    for i in range(3):
        assert numpy.array_equal(together[i], products.attend(q[i], k[i], v[i], scale=0.2, start=0))
    with pytest.raises(ValueError):
        products.attend(q[0], k[0], v[0], scale=0.2, start=1)  # keys of one position are missing


# ---- elements


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("columns", [1, 15, 77, 512])
def test_norms(columns, isa):
    random, products, reference = numpy.random.default_rng(9), Products("float", 2, isa), Operations()
    x = random.standard_normal((3, 5, columns)).astype(numpy.float32) * 3 + 1
    weight, bias = random.standard_normal((2, columns)).astype(numpy.float32)
    wide = x.astype(numpy.float64)
    numpy.testing.assert_allclose(
        products.rms_norm(x, weight, 1e-5), reference.rms_norm(wide, weight, 1e-5), rtol=2e-6, atol=2e-6
    )
    for offset in (bias, None):
        numpy.testing.assert_allclose(
            products.layer_norm(x, weight, offset, 1e-5),
            reference.layer_norm(wide, weight, offset, 1e-5),
            rtol=2e-5,
            atol=2e-5,
        )


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_oai"])
def test_activation_functions(kind, isa):
    """Absolute error below 1e-6 of the arguments, also where exp overflows, and on halves of a wider array."""
    products, reference = Products("float", 2, isa), Operations()
    gate = numpy.concatenate([numpy.linspace(-12, 12, 1003), [-200.0, 200.0, 0.0, -88.5, 88.9, 1e-30]]).astype(
        numpy.float32
    )
    gate = numpy.stack([gate, gate[::-1]])
    up = numpy.random.default_rng(4).standard_normal(gate.shape).astype(numpy.float32) * 4
    both = numpy.concatenate([gate, up], axis=1)
    columns = gate.shape[1]
    for second, scale in ((up, 8), (None, 1)):
        if kind == "swiglu_oai" and second is None:
            continue
        expected = reference.activate(
            kind, gate.astype(numpy.float64), None if second is None else second.astype(numpy.float64)
        )
        result = products.activate(kind, both[:, :columns], None if second is None else both[:, columns:])
        limit = 1e-6 * scale * numpy.maximum(1, numpy.abs(gate)) * (numpy.abs(gate) if kind == "relu2" else 1)
        assert (numpy.abs(result - expected) <= numpy.maximum(limit, 1e-6)).all()


@pytest.mark.parametrize("kind", ["norm", "neox"])
def test_rotation(kind):
    random = numpy.random.default_rng(6)
    x = random.standard_normal((2, 5, 3, 20)).astype(numpy.float32)
    angles = random.standard_normal((2, 5, 8)).astype(numpy.float32)
    for isa in SETS:
        numpy.testing.assert_allclose(
            Products("float", 2, isa).rotate(x, (angles[0], angles[1]), kind),
            positions.rotate(x, (angles[0], angles[1]), kind),
            atol=1e-6,
        )


@pytest.mark.parametrize("isa", SETS)
def test_log_probabilities_and_divergence(isa):
    random, products = numpy.random.default_rng(2), Products("float", 3, isa)
    logits = random.standard_normal((9, 1003)).astype(numpy.float32) * 5
    logits[0, :] = -3.25  # all equal
    logits[1, 17] = 300.0  # all others vanish

    def exact(values):
        values = values.astype(numpy.float64) - values.max(axis=1, keepdims=True)
        return values - numpy.log(numpy.exp(values).sum(axis=1, keepdims=True))

    base = products.log_softmax(logits.copy())
    numpy.testing.assert_allclose(base, exact(logits), rtol=2e-7, atol=2e-6)
    capped = products.log_softmax(logits.copy(), scale=0.5, cap=30.0)
    numpy.testing.assert_allclose(
        capped, exact(30 * numpy.tanh(logits.astype(numpy.float64) * 0.5 / 30)), rtol=1e-6, atol=1e-5
    )
    other = products.log_softmax(logits + random.standard_normal(logits.shape).astype(numpy.float32) * 0.2)
    divergence, base_top, other_top = products.divergence(base, other)
    wide = base.astype(numpy.float64)
    terms = numpy.where(wide > -16, numpy.exp(wide) * (wide - other), 0)
    numpy.testing.assert_allclose(divergence, terms.sum(axis=1), atol=1e-7)
    assert numpy.array_equal(base_top, base.argmax(axis=1)) and numpy.array_equal(other_top, other.argmax(axis=1))
    assert numpy.array_equal(base, Products("float", 1, isa).log_softmax(logits.copy()))


@pytest.mark.parametrize("scale", [1.0, 0.22])
@pytest.mark.parametrize("count", [1, 33, 40_000])
def test_addition(scale, count):
    x, y = numpy.random.default_rng(count).standard_normal((2, 1, count)).astype(numpy.float32)
    found = Products("float", 2).add(x, y, scale)
    assert numpy.array_equal(found, Operations().add(x, y, scale))


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_0"])
def test_storing_in_a_cache(name):
    """Heads go to their places behind what is stored, and nothing else changes."""
    kind = tensor_types.by_name(name)
    x = numpy.random.default_rng(4).standard_normal((2, 5, 3, 64)).astype(numpy.float32)
    stores = [numpy.full((2, 3, 9, tensor_types.row_bytes(kind, 64)), 7, numpy.uint8) for _ in range(2)]
    for operations, store in zip((Operations(), Products("float", 2)), stores, strict=True):
        operations.store(x, kind, store[:, :, 2:7])
    assert numpy.array_equal(*stores) and (stores[0][:, :, :2] == 7).all() and (stores[0][:, :, 7:] == 7).all()
    with pytest.raises(ValueError, match="does not fit"):
        Products("float", 1).store(x, kind, stores[0])
    with pytest.raises(QuantcliError, match="exceed"):
        Products("float", 1).store(
            numpy.full_like(x, numpy.inf), tensor_types.by_name("F16"), numpy.empty((2, 3, 5, 128), numpy.uint8)
        )
