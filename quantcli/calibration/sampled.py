"""Text that a model writes itself: what it thinks likely is what it must go on thinking after quantization."""

from __future__ import annotations

from collections.abc import Callable

import numpy
from numpy.typing import NDArray

from quantcli.runner.arrays import Floats, Ids
from quantcli.runner.network import Network

Chances = NDArray[numpy.float64]

FEWEST = 64  # sequences that are sampled side by side: below, the products wait for memory
MOST = 256  # above, they gain nothing
CACHE_BYTES = 1 << 30  # what their keys and values may take
PIECE = 256  # tokens of the vocabulary whose chances are summed first


def sample(
    network: Network,
    starts: Ids,
    length: int,
    *,
    bos: int | None,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Ids:
    """Token ids int32 [len(starts), length] drawn at temperature 1, each sequence after (bos and) its start token.

    Sequence i draws from a generator seeded with (``seed``, i), so it does not depend on how many run side by side
    beyond the rounding of products. ``progress`` is told how many tokens there are.
    """
    pieces = []
    together = max(FEWEST, min(MOST, CACHE_BYTES // (network.new_cache(1, length).bytes or 1)))
    for first in range(0, len(starts), together):
        part = starts[first : first + together]
        chances = numpy.stack([numpy.random.default_rng((seed, first + i)).random(length) for i in range(len(part))])
        told = None if progress is None else _later(progress, first * length)
        pieces.append(_sample_together(network, part, chances, bos, told))
    return numpy.concatenate(pieces) if pieces else numpy.empty((0, length), numpy.int32)


def _later(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    """``progress`` of a part that ``before`` tokens precede."""
    return lambda tokens: progress(before + tokens)


def _sample_together(
    network: Network, starts: Ids, chances: Chances, bos: int | None, progress: Callable[[int], None] | None
) -> Ids:
    """Sequences [S, length]; ``chances`` [S, length] uniform numbers below 1."""
    count, length = chances.shape
    tokens = numpy.empty((count, length), numpy.int32)
    given = [starts] if bos is None else [numpy.full(count, bos, numpy.int32), starts]
    for position, column in enumerate(given[:length]):
        tokens[:, position] = column
    cache = network.new_cache(count, length)
    for position in range(length - 1):
        logits = network.forward(tokens[:, position : position + 1], cache)[:, 0]
        if position + 1 >= len(given):
            tokens[:, position + 1] = drawn(logits, chances[:, position + 1])
        if progress is not None:
            progress(count * (position + 2))
    return tokens


def drawn(logits: Floats, chances: Chances) -> Ids:
    """One token per row of ``logits`` [S, V]: the first whose summed probability exceeds ``chances`` [S].

    First the piece of the vocabulary, then the token in it: a running sum over all takes longer than the products.
    """
    rows, vocabulary = logits.shape
    shares = numpy.zeros((rows, -(-vocabulary // PIECE) * PIECE), numpy.float32)
    numpy.exp(logits - logits.max(axis=1, keepdims=True), out=shares[:, :vocabulary])
    pieces = shares.reshape(rows, -1, PIECE)
    sums = numpy.cumsum(pieces.sum(axis=2), axis=1, dtype=numpy.float64)
    wanted = chances * sums[:, -1]
    chosen = numpy.minimum((sums <= wanted[:, None]).sum(axis=1), sums.shape[1] - 1)
    every = numpy.arange(rows)
    before = numpy.where(chosen > 0, sums[every, chosen - 1], 0.0)
    inside = before[:, None] + numpy.cumsum(pieces[every, chosen], axis=1, dtype=numpy.float64)
    place = numpy.minimum((inside <= wanted[:, None]).sum(axis=1), PIECE - 1)
    result: Ids = numpy.minimum(chosen * PIECE + place, vocabulary - 1).astype(numpy.int32)
    return result
