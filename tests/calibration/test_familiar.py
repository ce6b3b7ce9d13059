"""A model's own text is what surprises it as much as it expects; any other surprises it more."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.calibration import familiar
from quantcli.calibration.sampled import sample
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks

LENGTH = 64


@pytest.mark.parametrize("name", ["llama-k256", "gemma3", "qwen3"])
def test_its_own_text_is_chosen(name: str, tmp_path: Path) -> None:
    network = Network(open_model(oracles.unpack(name, tmp_path)), make_operations("float", 1), length=LENGTH)
    random = numpy.random.default_rng(7)
    starts = random.integers(0, network.vocabulary, 12).astype(numpy.int32)
    own = sample(network, starts, LENGTH, bos=None, seed=3)
    other = random.integers(0, network.vocabulary, own.shape).astype(numpy.int32)
    mixed = numpy.stack([own, other], axis=1).reshape(-1, LENGTH)
    surprise = familiar.excess_surprise(network, Chunks("text", mixed, None)).reshape(-1, 2).mean(axis=0)
    assert abs(surprise[0]) < 0.5 * surprise[1]
    chosen = familiar.choose(network, mixed, 12, None)
    assert len(chosen) == 12
    assert sum(any((row == one).all() for one in own) for row in chosen) >= 10
    places = [int(numpy.flatnonzero((mixed == row).all(axis=1))[0]) for row in chosen]
    assert places == sorted(places)


def test_all_where_all_are_wanted(tmp_path: Path) -> None:
    network = Network(open_model(oracles.unpack("qwen3", tmp_path)), make_operations("float", 1), length=LENGTH)
    tokens = numpy.arange(3 * LENGTH, dtype=numpy.int32).reshape(3, LENGTH) % network.vocabulary
    assert (familiar.choose(network, tokens, 5, None) == tokens).all()
