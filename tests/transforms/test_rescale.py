"""Transforms change no function: factors that are powers of two leave every bit of the logits as it is."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.architectures.topology import feeds
from quantcli.calibration import float_stream
from quantcli.calibration.exactness import exact_feeds
from quantcli.calibration.merging import Merging
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.loader import open_model
from quantcli.model import Model
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.text import Chunks
from quantcli.transforms import awq, equalize, rescale
from quantcli.transforms.rescale import Factors, Heads

RUN = oracles.decoders()
IDS = numpy.arange(3, 35, dtype=numpy.int32).reshape(2, 16)


def network_of(model: Model) -> Network:
    return Network(model, Operations("float"), length=IDS.shape[1], kv_type="F32")


def logits(model: Model) -> numpy.ndarray:
    network = network_of(model)
    return network.forward(IDS % network.vocabulary, network.new_cache(*IDS.shape))


def layer_matrices(model: Model) -> list[str]:
    """Names of the matrices that a recipe would quantize."""
    return [
        tensor.name
        for tensor in model.tensors
        if tensor.name.startswith("blk.") and tensor.name.endswith(".weight") and "norm" not in tensor.name
        if len(tensor.shape) > 1 and tensor.columns % 32 == 0 and "ffn_gate_inp" not in tensor.name
    ]


@pytest.mark.parametrize("name", RUN)
def test_powers_of_two_on_every_feed_leave_the_logits_bit_for_bit(name: str) -> None:
    random = numpy.random.default_rng(5)
    with open_model(oracles.folder(name)) as model:
        network = network_of(model)
        settings, tensors = network.settings, {tensor.name: tensor for tensor in model.tensors}
        heads, factors, found = Heads(settings.heads, settings.kv_heads, settings.value), {}, 0
        for index in range(settings.layers):
            prefix = f"blk.{index}."
            for feed in feeds(settings.graph, lambda role, prefix=prefix: f"{prefix}{role}.weight" in tensors):
                if not feed.exact:
                    continue
                reader = tensors[f"{prefix}{feed.matrices[0]}.weight"]
                count = reader.shape[2] if feed.through == "product" and len(reader.shape) > 2 else 1
                powers = random.integers(-3, 4, (count, reader.columns)).astype(numpy.float64)
                if feed.through == "attention":  # heads of a group share their values
                    groups = powers.reshape(count, heads.kv_heads, -1, heads.value)
                    powers = numpy.broadcast_to(groups[:, :, :1], groups.shape).reshape(count, -1)
                scale = numpy.exp2(powers).astype(numpy.float32)
                for tensor, one in rescale.factors_of(feed, prefix, scale, tensors, heads).items():
                    factors[tensor] = factors.get(tensor, Factors()).times(one)
                found += 1
        assert found >= settings.layers, "every layer has something to rescale"
        assert numpy.array_equal(logits(rescale.apply(model, factors)), logits(model))


@pytest.mark.parametrize("transform", ["awq", "smoothquant", "equalize"])
@pytest.mark.parametrize("name", ["llama3", "phi3", "qwen2", "gemma2", "qwen3-moe", "llama-tied-bias"])
def test_transforms_keep_the_function(name: str, transform: str) -> None:
    with open_model(oracles.folder(name)) as model:
        network = network_of(model)
        types = dict.fromkeys(layer_matrices(model), BY_NAME["Q4_0"])
        changed, every = model, dict[str, Factors]()
        for layer in float_stream.layers(network, Chunks("text", IDS % network.vocabulary, None)):
            factors = Merging(changed, network.settings, types, exact_feeds(network)).layer(transform, layer)
            changed, every = rescale.apply(changed, factors), every | factors
        expected, got = logits(model), logits(changed)
        assert numpy.abs(got - expected).max() < 2e-4 * expected.std()
        assert any(one.rows is not None for one in every.values()) and any(
            one.columns is not None for one in every.values()
        )


def test_awq_finds_the_columns_with_large_inputs() -> None:
    random = numpy.random.default_rng(2)
    values = random.standard_normal((64, 64)).astype(numpy.float32)
    inputs = random.standard_normal((400, 64))
    inputs[:, :4] *= 30
    hessian = inputs.T @ inputs / len(inputs)
    reader = awq.Reader(values, BY_NAME["Q4_0"])
    scale, alpha = awq.best_scale([reader], hessian, awq.magnitudes(hessian))
    assert alpha > 0 and scale[:4].min() > scale[4:].max()

    flat = numpy.eye(64)
    scale, alpha = awq.best_scale([reader], flat, awq.magnitudes(flat))
    assert alpha == 0 and numpy.array_equal(scale, numpy.ones(64, numpy.float32)), "nothing to gain, nothing changed"


def test_equalized_ranges_meet() -> None:
    random = numpy.random.default_rng(3)
    source, reader = random.random(32) + 0.1, (random.random((8, 32)) + 0.1).astype(numpy.float32)
    scale = equalize.equalized_scale([reader], source)
    ratio = (source / scale) / (reader * scale).max(axis=0)
    assert numpy.allclose(ratio, ratio[0], rtol=1e-5), "rows and columns have one range, but for a common factor"


def test_a_column_without_inputs_gets_a_finite_factor(tmp_path: Path) -> None:
    values = numpy.ones((4, 32), numpy.float32)
    values[:, 3] = 0
    inputs = numpy.ones(32)
    inputs[5] = 0
    for scale in (equalize.smoothquant_scale([values], inputs), equalize.equalized_scale([values], inputs)):
        assert numpy.isfinite(scale).all() and scale.min() > 0
