"""The backward pass against differences of the runner's own log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from quantcli.calibration import capture, gradients, tables
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, PackedMatrix

TINY = Path(__file__).parents[2] / "examples" / "tiny"


class Always:
    """A generator that draws the same numbers every time."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self, count: int) -> numpy.ndarray:
        return numpy.full(count, self.number)


def network_of(path: Path) -> Network:
    return Network(open_model(path), make_operations("float", 1), length=16, kv_type="F32")


def loss(network: Network, x: numpy.ndarray, drawn: numpy.ndarray) -> float:
    cache = network.new_cache(*x.shape[:2])
    for index in range(network.settings.layers):
        x = network.layer(index, x, cache)
    found = network.log_probs(x)[0].astype(numpy.float64)
    return float(found[numpy.arange(len(drawn)), drawn].sum())


def test_gradients_are_the_slopes_of_the_loss() -> None:
    network, random = network_of(TINY), numpy.random.default_rng(5)
    ids = random.integers(0, 500, (1, 12)).astype(numpy.int32)
    found = gradients.at_embeddings(network, ids, Always(0.5))[0][0].astype(numpy.float64)
    x = network.embed(ids)
    cache, stream = network.new_cache(1, 12), x
    for index in range(network.settings.layers):
        stream = network.layer(index, stream, cache)
    chances = numpy.exp(network.log_probs(stream)[0])
    drawn = (numpy.cumsum(chances, axis=1, dtype=numpy.float64) < 0.5).sum(axis=1)
    for _ in range(6):
        direction = random.normal(size=x.shape).astype(numpy.float32) * x.std()
        step = numpy.float32(2e-3)
        slope = (loss(network, x + step * direction, drawn) - loss(network, x - step * direction, drawn)) / (2 * step)
        assert slope == pytest.approx(float((found * direction[0]).sum()), rel=2e-2, abs=2e-2 * abs(found).max())


def test_information_has_the_trace_that_noise_shows() -> None:
    """KL(model || embeddings with noise of sigma) = sigma^2 tr S / 2 for small sigma."""
    network, random = network_of(TINY), numpy.random.default_rng(6)
    ids = random.integers(0, 500, (24, 16)).astype(numpy.int32)
    found = gradients.information(network, ids, 1)
    hx, s = found.head, found.embeddings
    assert numpy.allclose(s, s.T) and numpy.linalg.eigvalsh(s).min() > -1e-6 * numpy.trace(s)

    def logs(x: numpy.ndarray) -> numpy.ndarray:
        cache = network.new_cache(*x.shape[:2])
        for index in range(network.settings.layers):
            x = network.layer(index, x, cache)
        return network.log_probs(x).astype(numpy.float64)

    chunks = Chunks("noise", ids, None)
    assert numpy.allclose(hx, tables.output_moments(network, chunks), rtol=0.5, atol=0.1 * abs(hx).max())
    x = network.embed(ids)
    sigma = numpy.float32(0.02 * x.std())
    own = logs(x)
    noise = random.standard_normal(x.shape, numpy.float32)
    other = logs(x + sigma * noise)
    divergence = (numpy.exp(own) * (own - other)).sum(axis=-1).mean()
    assert 2 * divergence / sigma**2 == pytest.approx(numpy.trace(s), rel=0.35)


@pytest.mark.parametrize("kind", ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_down", "ffn_gate", "ffn_up"])
def test_gradients_at_outputs_are_the_slopes_of_the_loss(kind: str) -> None:
    """The loss's slope along a change D of the weights is the sum of g (D x) over the tokens."""
    network, random = network_of(TINY), numpy.random.default_rng(7)
    ids = random.integers(0, 500, (1, 12)).astype(numpy.int32)
    layer = network.settings.layers - 1
    name, outputs = f"blk.{layer}.{kind}.weight", {}

    def see(found: dict[str, numpy.ndarray], gates: dict[str, tuple[numpy.ndarray, numpy.ndarray]]) -> None:
        outputs.update(found)
        for up, (of_gate, of_up) in gates.items():
            outputs[up.replace("ffn_up", "ffn_gate")], outputs[up] = of_gate, of_up

    gradients.at_embeddings(network, ids, Always(0.5), see)
    x = network.embed(ids)
    for index in range(layer):
        x = network.layer(index, x, network.new_cache(1, 12))
    chances = numpy.exp(network.log_probs(network.layer(layer, x, network.new_cache(1, 12)))[0])
    drawn = (numpy.cumsum(chances, axis=1, dtype=numpy.float64) < 0.5).sum(axis=1)
    weight, inputs = next((one, found) for one, found in seen_by(network, layer, x) if one.name == name)
    values = weight.decode()
    at = outputs[name].astype(numpy.float64).reshape(12, -1)
    heads = network.settings.attention[layer]
    parts = {"attn_q": heads.queries, "attn_k": heads.keys, "attn_v": heads.keys, "attn_output": 1, "ffn_down": 1}
    assert outputs[name].shape[2] == parts.get(kind, len(values))
    for _ in range(4):
        direction = (random.normal(size=values.shape) * values.std()).astype(numpy.float32)
        step, found = numpy.float32(2e-2), []
        for sign in (1, -1):
            moved = numpy.ascontiguousarray(values + numpy.float32(sign) * step * direction)
            changed = network.replacing({name: Packed(BY_NAME["F32"], moved.view(numpy.uint8))})
            logs = changed.log_probs(changed.layer(layer, x, changed.new_cache(1, 12)))[0].astype(numpy.float64)
            found.append(float(logs[numpy.arange(12), drawn].sum()))
        slope = (found[0] - found[1]) / (2 * step)
        expected = float((at * (inputs @ direction.T.astype(numpy.float64))).sum())
        assert slope == pytest.approx(expected, rel=3e-2, abs=3e-2 * numpy.abs(at).max())


def test_information_of_outputs_is_the_sum_of_squares_of_every_other_sequence() -> None:
    network = network_of(TINY)
    ids = numpy.random.default_rng(8).integers(0, 500, (3, 16)).astype(numpy.int32)
    outputs: dict[str, numpy.ndarray] = {}
    found = gradients.information(network, ids, 1, first=2).outputs
    gradients.at_embeddings(network, ids, numpy.random.default_rng((1, 0)), lambda found, _: outputs.update(found))
    assert outputs.keys() == found.keys()
    for name, gradient in outputs.items():
        for half in range(2):
            flat = gradient[half::2, 2:].reshape(-1, *gradient.shape[2:]).astype(numpy.float64)
            expected = numpy.einsum("tpi,tpj->pij", flat, flat)
            assert numpy.allclose(found[name][half], expected, rtol=1e-4, atol=1e-5 * abs(expected).max()), name


def test_pairs_are_sums_of_a_gates_and_an_up_projections_gradients() -> None:
    network = network_of(TINY)
    ids = numpy.random.default_rng(8).integers(0, 500, (3, 16)).astype(numpy.int32)
    gates: dict[str, tuple[numpy.ndarray, numpy.ndarray]] = {}
    found = gradients.information(network, ids, 1, first=2).pairs
    gradients.at_embeddings(network, ids, numpy.random.default_rng((1, 0)), lambda _, seen: gates.update(seen))
    assert gates.keys() == found.keys() and len(found) == network.settings.layers
    for name, both in gates.items():
        for half in range(2):
            pair = numpy.stack(both, axis=-1)[half::2, 2:].reshape(-1, both[0].shape[-1], 2).astype(numpy.float64)
            expected = numpy.einsum("tmi,tmj->mij", pair, pair)
            assert numpy.allclose(found[name][half], expected, rtol=1e-4, atol=1e-5 * abs(expected).max()), name


def test_a_wide_stream_has_no_moments_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "MOST_OF_STREAM", 1000)
    ids = numpy.random.default_rng(9).integers(0, 500, (2, 16)).astype(numpy.int32)
    kinds = {name.split(".")[2] for name in gradients.information(network_of(TINY), ids, 1).outputs}
    assert kinds == {"attn_q", "attn_k", "attn_v"}


def seen_by(network: Network, layer: int, x: numpy.ndarray) -> Iterator[tuple[PackedMatrix, numpy.ndarray]]:
    """The matrices of a layer that gets ``x``, and what each reads, float64 [tokens, columns]."""
    for part in network.layer_parts(layer):
        cache = network.new_cache(*x.shape[:2])
        for stage in capture.stages_of(network, part, x, cache):
            ((_, found),) = capture.inputs_of(network, part, stage, x, network.new_cache(*x.shape[:2]))
            for weight in stage.weights:
                yield weight, found.reshape(-1, found.shape[-1]).astype(numpy.float64)
        x = part(x, network.new_cache(*x.shape[:2]))
