"""Which feeds of a model may be rescaled: those where its own logits prove it, bit for bit.

The topology of a family says what feeds what. Whether nothing else reads the vector (a gate, a state, a later layer
that shares keys) and nothing bends it on the way (values that are clamped) is seen by doing it: factors that are
powers of two change no bit of the logits where a rewrite is exact, and do where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy

from quantcli.architectures.topology import Feed, feeds
from quantcli.methods.seam import matrix_count
from quantcli.model import Model, ModelTensor
from quantcli.runner.arrays import Floats
from quantcli.runner.network import Network
from quantcli.runner.settings import NetworkSettings
from quantcli.transforms import rescale
from quantcli.transforms.rescale import Factors, Heads

POSITIONS = 12
LARGEST = 3  # powers of two


def heads_of(settings: NetworkSettings, layer: int) -> Heads:
    """How attention of one layer leads from value rows to output columns."""
    found = settings.attention[layer]
    return Heads(found.queries, found.keys, found.value)


def feeds_of(settings: NetworkSettings, layer: int, tensors: Mapping[str, ModelTensor]) -> list[Feed]:
    """The feeds of a layer that the topology takes for exact and whose tensors are there."""
    prefix, heads = f"blk.{layer}.", heads_of(settings, layer)

    def has(role: str) -> bool:
        return f"{prefix}{role}.weight" in tensors

    def fits(feed: Feed) -> bool:
        if not feed.exact or not all(has(role) for role in (feed.source or "", *feed.matrices)):
            return False
        columns = tensors[f"{prefix}{feed.matrices[0]}.weight"].columns
        return feed.through != "attention" or columns == heads.heads * heads.value > 0

    return [feed for feed in feeds(settings.graph, has) if fits(feed)]


def exact_feeds(network: Network) -> frozenset[Feed]:
    """Of all layers. Runs a few positions once for every feed, and once more."""
    settings, model = network.settings, network.model
    tensors = {tensor.name: tensor for tensor in model.tensors}
    layers = {layer: feeds_of(settings, layer, tensors) for layer in range(settings.layers)}
    every = list(dict.fromkeys(feed for found in layers.values() for feed in found))
    if not every:
        return frozenset()
    random = numpy.random.default_rng(1)
    powers = {feed: _factors(feed, layers, settings, tensors, random) for feed in every}
    ones = {name: _ones(one) for factors in powers.values() for name, one in factors.items()}
    plain = _logits(network, rescale.apply(model, ones))
    return frozenset(
        feed
        for feed in every
        if numpy.array_equal(plain, _logits(network, rescale.apply(model, {**ones, **powers[feed]})))
    )


def _factors(
    feed: Feed,
    layers: Mapping[int, list[Feed]],
    settings: NetworkSettings,
    tensors: Mapping[str, ModelTensor],
    random: numpy.random.Generator,
) -> dict[str, Factors]:
    """Powers of two on the feed in every layer that has it."""
    found: dict[str, Factors] = {}
    for layer in (layer for layer, own in layers.items() if feed in own):
        prefix, heads = f"blk.{layer}.", heads_of(settings, layer)
        reader = tensors[f"{prefix}{feed.matrices[0]}.weight"]
        count = matrix_count(reader) if feed.through == "product" else 1
        powers = random.integers(-LARGEST, LARGEST + 1, (count, reader.columns))
        if feed.through == "attention":  # query heads of a group share their values
            groups = powers.reshape(count, heads.kv_heads, -1, heads.value)
            powers = numpy.broadcast_to(groups[:, :, :1], groups.shape).reshape(count, -1)
        scale = numpy.exp2(powers.astype(numpy.float32))
        for name, one in rescale.factors_of(feed, prefix, scale, tensors, heads).items():
            found[name] = found.get(name, Factors()).times(one)
    return found


def _ones(factors: Factors) -> Factors:
    """The same without effect: a tensor is then stored alike with and without them."""
    rows, columns = factors.rows, factors.columns
    return Factors(
        None if rows is None else numpy.ones_like(rows), None if columns is None else numpy.ones_like(columns)
    )


def _logits(network: Network, model: Model) -> Floats:
    changed = Network(model, network.operations, length=network.length, kv_type=network.kv_type)
    count = min(POSITIONS, network.length)
    tokens = (numpy.arange(count, dtype=numpy.int32) * 7 % changed.vocabulary)[None]
    return changed.forward(tokens, changed.new_cache(*tokens.shape))
