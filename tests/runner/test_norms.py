"""Norms in C against those in numpy: one weight for every head, or weights of each head's own (Command R+)."""

from __future__ import annotations

import numpy
import pytest

from quantcli.errors import ShapeMismatch
from quantcli.runner.operations import Operations
from quantcli.runner.products import Products
from quantcli.runner.steps import Recording

HEADS, WIDTH, TOKENS = 4, 64, 3


def arrays(weights: tuple[int, ...], bias: bool) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray | None]:
    random = numpy.random.default_rng(5)
    x, weight, offset = (
        random.standard_normal(shape).astype(numpy.float32) for shape in ((TOKENS, HEADS, WIDTH), weights, weights)
    )
    return x, weight, offset if bias else None


@pytest.mark.parametrize("weights", [(WIDTH,), (HEADS, WIDTH)], ids=["head", "each"])
@pytest.mark.parametrize("kind", ["rms", "layer", "layer with bias"])
def test_norms_are_those_of_numpy(weights: tuple[int, ...], kind: str) -> None:
    x, weight, bias = arrays(weights, kind.endswith("bias"))
    found, expected = (
        operations.rms_norm(x, weight, 1e-5) if kind == "rms" else operations.layer_norm(x, weight, bias, 1e-5)
        for operations in (Products("float", 2), Operations())
    )
    assert found.dtype == numpy.float32 and numpy.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_norm_computed_in_python_is_computed_again() -> None:
    """A recording that did the steps around it alone would leave the old result between them."""
    products = Products("float", 1)
    x, weight, _ = arrays((HEADS, WIDTH), False)
    recording = products.recording()
    assert isinstance(recording, Recording)
    with recording.of(x, 0) as start:
        result = products.add(products.layer_norm(start, weight, None, 1e-5), start)
    assert recording.finish(result)
    other = numpy.ascontiguousarray(x[..., ::-1])
    again = products.add(products.layer_norm(other, weight, None, 1e-5), other)
    assert numpy.array_equal(recording.repeat(other, 0), again) and not numpy.array_equal(again, x)


def test_what_no_step_has_made_is_not_repeated() -> None:
    products = Products("float", 1)
    x, weight, _ = arrays((WIDTH,), False)
    recording = products.recording()
    assert isinstance(recording, Recording)
    with recording.of(x, 0) as start:
        result = products.host(lambda x: x + 1, products.layer_norm(start, weight, None, 1e-5) * 2)
    assert not recording.finish(result)


@pytest.mark.parametrize("size", [1, WIDTH - 1, WIDTH + 1, HEADS * WIDTH])
def test_weights_of_another_size_are_refused(size: int) -> None:
    x, _, _ = arrays((WIDTH,), False)
    products, weight = Products("float", 1), numpy.ones(size, numpy.float32)
    with pytest.raises(ValueError, match="norm"):
        products.rms_norm(x, weight, 1e-5)
    with pytest.raises(ValueError, match="norm"):
        products.layer_norm(x, numpy.ones(WIDTH, numpy.float32), weight, 1e-5)


def test_a_step_beyond_its_counts_is_an_error() -> None:
    """What Python says of the sizes is looked at again in C."""
    products = Products("float", 1)
    pool, x = products.pool, numpy.ones((2, WIDTH), numpy.float32)
    fields = {
        "x": pool.floats(x), "rows": 3, "columns": WIDTH, "weight": pool.floats(x), "bias": pool.ffi.NULL, "eps": 1e-5,
        "out": pool.floats(x.copy()), "x_count": x.size, "weight_count": WIDTH, "bias_count": 0, "out_count": x.size,
    }  # fmt: skip
    with pytest.raises(ShapeMismatch, match="less memory than it needs"):
        pool.run("rms_norm", fields, inputs=[x], outputs=[x])
