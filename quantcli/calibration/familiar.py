"""Which chunks of a text a model reads as it expects to: those are worth calibrating with.

For text that a model might have written itself, the mean surprise -log p(token) equals the mean entropy of its
predictions. In a language or format that it was not trained on it is surprised beyond that, and its activations there
are none that it will ever need well.
"""

from __future__ import annotations

import numpy

from quantcli.runner.arrays import Doubles, Ids
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks

READ = 80  # tokens of a chunk that are read
SKIPPED = 16  # of these: before, a model cannot know what it reads
TOGETHER = 32  # chunks


def excess_surprise(network: Network, chunks: Chunks) -> Doubles:
    """Per chunk the mean of -log p(token) less the prediction's entropy, in nats, over the first `READ` tokens."""
    found = []
    for start in range(0, len(chunks), TOGETHER):
        stop = min(start + TOGETHER, len(chunks))
        ids = chunks.inputs(start, stop)[:, :READ]
        chances = network.log_probs(network.stream(ids[:, :-1]))[:, SKIPPED:]
        told = numpy.take_along_axis(chances, ids[:, SKIPPED + 1 :, None].astype(numpy.int64), axis=2)[..., 0]
        entropy = -numpy.einsum("stv,stv->st", numpy.exp(chances), chances)
        found.append((-told - entropy).mean(axis=1, dtype=numpy.float64))
    return numpy.concatenate(found) if found else numpy.zeros(0)


def choose(network: Network, tokens: Ids, count: int, bos: int | None) -> Ids:
    """The ``count`` chunks of ``tokens`` [n, length] that surprise the model least, in their order."""
    if count >= len(tokens) or tokens.shape[1] <= SKIPPED + 1:
        return tokens[:count]
    surprise = excess_surprise(network, Chunks("calibration", tokens, bos))
    return tokens[numpy.sort(numpy.argsort(surprise, kind="stable")[:count])]
