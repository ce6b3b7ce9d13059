"""How much the model minds: the divergence that one changed tensor alone causes, from forward passes.

All probes of a batch of text go through the model together, layer by layer: each begins as the model's own stream and
leaves it in the layer of its tensor. So a layer's weights are read once a batch, and nothing is computed before the
change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from quantcli.runner.arrays import Floats, Ids
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed

FIRST = 32  # positions before it have little context
EVERY = 4  # position behind it is scored: neighbours say much the same
MOST_LOGITS = 1 << 25  # that are held of the model itself (128 MB)

Changes = Callable[[int], Mapping[str, Packed]]  # layer -> the tensors that are probed there, changed


@dataclass(frozen=True)
class Scored:
    """The model's own predictions on a batch, at the positions that count: log-probabilities [S * P, V]."""

    log_probs: Floats
    every: int

    @classmethod
    def of(cls, network: Network, x: Floats) -> Scored:
        """``x``: [S, T, H], the stream before the head."""
        every = max(EVERY, x.shape[0] * x.shape[1] * network.vocabulary // MOST_LOGITS)
        return cls(_log_probs(network, x, every), every)

    def divergence(self, network: Network, x: Floats) -> float:
        """KL(model || the stream ``x`` and the head of ``network``), mean over positions."""
        found, _, _ = network.operations.divergence(self.log_probs, _log_probs(network, x, self.every))
        return float(found.mean())


def _log_probs(network: Network, x: Floats, every: int) -> Floats:
    first = min(FIRST, x.shape[1] // 2)
    found = network.log_probs(x[:, first::every])
    return found.reshape(-1, found.shape[-1])


def one_by_one(network: Network, ids: Ids, changes: Changes) -> dict[str, float]:
    """Tensor name -> divergence where it alone is changed. ``ids``: [S, T], what the model reads.

    Each layer's weights are forgotten after it.
    """
    x = network.embed(ids)
    streams: dict[str, Floats] = {}
    for index in range(network.settings.layers):
        for name, stream in streams.items():
            streams[name] = _through(network, index, stream)
        for name, contents in changes(index).items():
            streams[name] = _through(network.replacing({name: contents}), index, x)
        x = _through(network, index, x)
        network.release(index)
    expected = Scored.of(network, x)
    return {name: expected.divergence(network, stream) for name, stream in streams.items()}


def _through(network: Network, index: int, x: Floats) -> Floats:
    return network.layer(index, x, network.new_cache(*x.shape[:2]))


# ---- which layers


def chosen_layers(layers: Sequence[int], most: int) -> list[int]:
    """At most about ``most`` of the layers that have a tensor of one role: the first two, the last, the rest spread."""
    if len(layers) <= max(most, 4):
        return list(layers)
    places = {0, 1, *numpy.linspace(1, len(layers) - 1, most - 1).astype(int).tolist()}
    return [layers[place] for place in sorted(places)]


def between(layers: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
    """Positive values of all ``layers`` from those ``known``: geometric interpolation, constant outside."""
    places = sorted(known)
    logs = numpy.log([max(known[place], 1e-30) for place in places])
    return {layer: float(numpy.exp(numpy.interp(layer, places, logs))) for layer in layers}


def some_of(chunks: Chunks, tokens: int) -> Chunks:
    """Chunks of about this many tokens, spread over all of them."""
    step = max(1, len(chunks) * chunks.length // tokens)
    return Chunks(chunks.name, chunks.tokens[::step], chunks.bos)
