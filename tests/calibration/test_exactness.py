"""What is found to be exact is exact, for every family that runs; what is not is left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.calibration import exactness, merging
from quantcli.calibration.exactness import exact_feeds, feeds_of
from quantcli.calibration.quality import TRANSFORMS
from quantcli.errors import QuantcliError
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.transforms import rescale
from quantcli.transforms.rescale import Factors

SHARED = Path(os.environ.get("QUANTCLI_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
PACKED = [oracles.folder(name) for name in oracles.names()]
FOLDERS = [
    path.parent
    for kind in ("arch-new", "arch-more")
    if (SHARED / kind).is_dir()
    for path in sorted((SHARED / kind).glob("*/config.json"))
]
# (oracle, source): the topology takes it for exact, and the model bends what lies between or reads it elsewhere.
NOT_EXACT = {
    ("dbrx", "attn_qkv"),  # queries, keys and values are clamped
    ("mpt", "attn_qkv"),
    ("olmo", "attn_v"),
    ("gemma4", "attn_v"),  # values are normed, and other layers share them
    ("gemma4-moe", "attn_v"),
    ("gemma4-vl", "attn_v"),
    ("gemma3n", "attn_v"),
    ("gemma3n", "attn_norm"),  # the low-rank path beside attention reads it too
    ("gemma4-moe", "ffn_norm"),  # experts beside the MLP, or the other way round
    ("grok2", "ffn_norm"),
}


def network_of(folder: Path) -> Network:
    """Raises QuantcliError for a model that does not run."""
    return Network(open_model(folder), make_operations("float", 1), length=16, kv_type="F32")


@pytest.mark.parametrize("folder", PACKED + FOLDERS, ids=lambda folder: folder.name)
def test_all_exact_feeds_at_once(folder: Path) -> None:
    try:
        network = network_of(folder)
    except QuantcliError as error:
        pytest.skip(f"does not run: {error}")
    with network.model:
        exact, settings = exact_feeds(network), network.settings
        tensors = {tensor.name: tensor for tensor in network.model.tensors}
        layers = {layer: feeds_of(settings, layer, tensors) for layer in range(settings.layers)}
        random, factors = numpy.random.default_rng(9), dict[str, Factors]()
        for feed in exact:
            for name, one in exactness._factors(feed, layers, settings, tensors, random).items():
                factors[name] = factors.get(name, Factors()).times(one)
        ones = {name: exactness._ones(one) for name, one in factors.items()}
        first, second = (exactness._logits(network, rescale.apply(network.model, given)) for given in (ones, factors))
        assert numpy.array_equal(first, second)
        believed = {feed for found in layers.values() for feed in found}
        missed = {(folder.name, feed.source) for feed in believed - exact}
        assert missed == {pair for pair in NOT_EXACT if pair[0] == folder.name}


def test_every_transform_that_can_be_asked_for_is_found() -> None:
    assert tuple(merging.FINDERS) == TRANSFORMS
