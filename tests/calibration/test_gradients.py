"""The backward pass against differences of the runner's own log-probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from quantcli.calibration import gradients, tables
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks

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
    hx, s = gradients.information(network, ids, 1)
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
