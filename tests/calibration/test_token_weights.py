"""What tokens count in the moments of gates and up projections: the derivatives, and how the sums use them."""

from __future__ import annotations

import numpy
import pytest

from helpers import oracles
from quantcli.calibration import token_weights
from quantcli.calibration.capture import inputs_of, stages_of
from quantcli.calibration.compensate import calibration_network
from quantcli.calibration.moments import Moments, excess
from quantcli.loader import open_model
from quantcli.runner.operations import ACTIVATION


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_a_token_counts_as_its_errors_do_behind_the_neuron(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        network = calibration_network(model, 1)
        x = network.embed(numpy.random.default_rng(1).integers(0, 100, (2, 9)).astype(numpy.int32))
        for part in network.layer_parts(0):
            for stage in stages_of(network, part, x, network.new_cache(*x.shape[:2])):
                weigh = token_weights.of_stage(network, stage)
                assert (weigh is not None) == (stage.names == ("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"))
                if weigh is None:
                    continue
                ((_, inputs),) = inputs_of(network, part, stage, x, network.new_cache(*x.shape[:2]))
                stream = x.reshape(-1, x.shape[-1])
                found = weigh(inputs.reshape(-1, inputs.shape[-1]), stream)
                gate, up = (inputs.reshape(-1, inputs.shape[-1]) @ one.decode().T for one in stage.weights)
                act, size = ACTIVATION[network.settings.graph.activation], numpy.square(stream).mean(axis=1)
                step = numpy.float32(1e-2)
                for errors, weights in (
                    ((act(gate + step) - act(gate - step)) * up / (2 * step), found[0]),
                    (act(gate.copy()), found[1]),
                ):
                    assert weights == pytest.approx(numpy.square(errors).mean(axis=1) / size, rel=2e-2)
            x = part(x, network.new_cache(*x.shape[:2]))


def test_other_stages_have_none() -> None:
    with open_model(oracles.folder("qwen3-moe")) as model:
        network = calibration_network(model, 1)
        x = network.embed(numpy.arange(6, dtype=numpy.int32)[None])
        for part in network.layer_parts(0):
            for stage in stages_of(network, part, x, network.new_cache(*x.shape[:2])):
                assert token_weights.of_stage(network, stage) is None
            x = part(x, network.new_cache(*x.shape[:2]))


def test_a_token_that_counts_twice_is_seen_twice() -> None:
    random = numpy.random.default_rng(2)
    a, b, r = (random.standard_normal((40, n)).astype(numpy.float32) for n in (12, 12, 5))
    counts = random.integers(0, 4, 40)
    weighted, repeated = (Moments.zero(12, cross=True, residual_rows=5) for _ in range(2))
    weighted.add(b, a, r, counts.astype(numpy.float32))
    repeated.add(*(numpy.repeat(one, counts, axis=0) for one in (b, a, r)))
    assert weighted.tokens == 40 and weighted.weight == counts.sum() == repeated.tokens
    values, error = random.standard_normal((2, 5, 12)).astype(numpy.float32)
    assert numpy.allclose(weighted.mean_hessian(), repeated.mean_hessian(), rtol=1e-4, atol=1e-5)
    assert numpy.allclose(weighted.pull(values), repeated.pull(values), rtol=1e-4, atol=1e-4)
    one, other = (excess(error, m.mean_hessian(), m.pull(values)) for m in (weighted, repeated))
    assert one == pytest.approx(other, rel=1e-4)
