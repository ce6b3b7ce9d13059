"""Observers see the inputs of every product, and the network computes the same with them and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.replay import Stepper
from quantcli.runner.session import make_operations
from quantcli.runner.weights import PackedMatrix


class Noting:
    """Keeps copies of what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[numpy.ndarray, tuple[str, ...], int | None]] = []

    def see(self, inputs: numpy.ndarray, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        assert inputs.dtype == numpy.float32 and inputs.flags.c_contiguous
        assert all(inputs.shape[1] == weight.columns for weight in weights)
        self.seen.append((inputs.copy(), tuple(weight.name for weight in weights), expert))


def folder(root: Path, name: str) -> Path:
    return root / "examples" / "tiny" if name == "tiny" else oracles.folder(name)


def test_every_product_is_shown_once_in_order(root: Path) -> None:
    noting = Noting()
    with open_model(folder(root, "tiny")) as model:
        network = Network(model, make_operations("float", 1), observers=[noting])
        network.forward(numpy.array([[5, 6, 7], [8, 9, 10]]), network.new_cache(2, 3), first_output=2)
    layer = [("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)]
    expected = [tuple(f"blk.{i}.{role}.weight" for role in roles) for i in range(4) for roles in layer]
    head = ("output.weight",) if "output.weight" in network.weights else ("token_embd.weight",)
    assert [names for _, names, _ in noting.seen] == [*expected, head]
    assert [len(inputs) for inputs, _, _ in noting.seen] == [6] * 16 + [2]  # the last positions of both sequences
    assert all(expert is None for _, _, expert in noting.seen)


@pytest.mark.parametrize("make", [Operations, lambda: make_operations("float", 1)], ids=["numpy", "C"])
def test_what_is_shown_gives_the_products(root: Path, make) -> None:
    """Each expert sees the rows that were routed to it; inputs times weights is what the operations compute."""
    noting, made = Noting(), []
    operations = make()
    with open_model(folder(root, "qwen3-moe")) as model:
        network = Network(model, operations, observers=[noting])
        tokens = numpy.random.default_rng(0).integers(3, 300, (1, 12))
        network.forward(tokens, network.new_cache(1, 12))
        used = network.settings.experts_used
        weights = {w.name: w for w in (network.weights.matrix("blk.0.attn_q", network.settings.hidden),)}
    first = noting.seen[0][0]
    made = operations.multiply(first, weights["blk.0.attn_q.weight"])[0]
    numpy.testing.assert_allclose(made, first @ weights["blk.0.attn_q.weight"].decode().T, atol=1e-5)
    router = next(inputs for inputs, names, _ in noting.seen if names == ("blk.0.ffn_gate_inp.weight",))
    routed = [one for one in noting.seen if one[1] == ("blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight")]
    assert [expert for _, _, expert in routed] == sorted({expert for _, _, expert in routed})
    assert sum(len(inputs) for inputs, _, _ in routed) == 12 * used
    rows = {row.tobytes() for row in router}
    assert all(row.tobytes() in rows for inputs, _, _ in routed for row in inputs)


@pytest.mark.parametrize("name", ["gemma3", "qwen3-moe", "phi3"])
def test_watching_changes_nothing(root: Path, name: str) -> None:
    noting = Noting()
    tokens = numpy.random.default_rng(1).integers(3, 300, (2, 10))
    with open_model(folder(root, name)) as model:
        network = Network(model, make_operations("float", 2))
        plain = network.forward(tokens, network.new_cache(2, 10))
        with network.observed_by(noting):
            watched = network.forward(tokens, network.new_cache(2, 10))
        assert numpy.array_equal(plain, watched) and noting.seen and not network.observers
        before = len(noting.seen)
        network.forward(tokens, network.new_cache(2, 10))
        assert len(noting.seen) == before


def test_observers_see_single_tokens_too(root: Path) -> None:
    """A recording repeats steps that nobody sees: with observers every token is computed, to the same bits."""
    noting = Noting()
    with open_model(folder(root, "llama3")) as model:
        network = Network(model, make_operations("float", 1))
        alone, watched = (Stepper(network, network.new_cache(1, 8)) for _ in range(2))
        expected = [alone(token).copy() for token in (5, 6, 7, 8)]
        found = [watched(token).copy() for token in (5, 6)]
        with network.observed_by(noting):
            found.append(watched(7).copy())
        found.append(watched(8).copy())
    assert alone.recording is not None and alone.recording.ready
    assert numpy.array_equal(expected, found)
    assert len(noting.seen) == 4 * network.settings.layers + 1 and {len(one[0]) for one in noting.seen} == {1}


def test_what_an_observer_raises_ends_the_pass(root: Path) -> None:
    class Refusing:
        def see(self, inputs: numpy.ndarray, weights: Sequence[PackedMatrix], expert: int | None) -> None:
            raise ValueError(weights[0].name)

    with open_model(folder(root, "tiny")) as model:
        network = Network(model, make_operations("float", 1))
        with pytest.raises(ValueError, match=r"blk\.0\.attn_q"), network.observed_by(Refusing()):
            network.stream(numpy.array([[5, 6]]))
        assert not network.observers
