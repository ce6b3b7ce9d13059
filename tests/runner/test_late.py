"""What differs by position or by layer: growing queries, norms behind the rotation, parameters of activations."""

from __future__ import annotations

import numpy
import pytest

from helpers import oracles
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations, xielu, xielu_numbers
from quantcli.runner.replay import Stepper
from quantcli.runner.session import make_operations


@pytest.mark.parametrize("name", ["apertus", "hunyuan-dense", "ministral3"])
def test_token_after_token_is_what_all_at_once_is(name: str) -> None:
    """Beyond the 64 positions that Ministral's first context has; recorded steps among them."""
    ids = numpy.random.default_rng(0).integers(5, 300, 100)
    with open_model(oracles.folder(name)) as model:
        network = Network(model, make_operations("float", 1), kv_type="F32", length=100)
        whole = network.forward(ids[None], network.new_cache(1, 100))[0]
        plain = Network(model, Operations(), kv_type="F32", length=100)
        assert numpy.abs(plain.forward(ids[None], plain.new_cache(1, 100))[0] - whole).max() < 1e-5 * whole.std()
        cache = network.new_cache(1, 100)
        network.forward(ids[None, :50], cache)
        step = Stepper(network, cache)
        found = numpy.array([step(int(token)).copy() for token in ids[50:]])
        assert step.recording is not None and step.recording.ready
    assert numpy.abs(found - whole[50:]).max() < 1e-5 * whole.std()


def test_xielu_is_the_reference() -> None:
    """Near 0, where a difference of small numbers would lose its digits, and far from it."""
    x = numpy.concatenate(
        [numpy.linspace(-60, 60, 4001), numpy.linspace(-0.6, 0.1, 4001), [0.0, -0.0, -1e-7, -1e-6, -1e-30]]
    ).astype(numpy.float32)
    parameters = (0.498, 0.4746, 0.5, -1e-6)
    numbers = xielu_numbers(*parameters).astype(numpy.float64)
    exact = xielu(x.astype(numpy.float64), numbers)
    scale = numpy.maximum(1, numpy.abs(exact))
    for operations in (Operations(), make_operations("float", 1)):
        found = operations.activate("xielu", x.reshape(1, -1), None, parameters)[0]
        assert (numpy.abs(found - exact) / scale).max() < 1e-6
