"""Text that a model writes itself: what it thinks likely is what it must go on thinking after quantization."""

from __future__ import annotations

from collections.abc import Callable

import numpy
from numpy.typing import NDArray

from quantcli.runner.arrays import Floats, Ids
from quantcli.runner.network import Network

Chances = NDArray[numpy.float64]

TOGETHER = 64  # sequences that are sampled side by side: below, the products wait for memory


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
    beyond the rounding of products. ``progress`` is told the sequences that are done.
    """
    pieces = []
    for first in range(0, len(starts), TOGETHER):
        part = starts[first : first + TOGETHER]
        chances = numpy.stack([numpy.random.default_rng((seed, first + i)).random(length) for i in range(len(part))])
        pieces.append(_sample_together(network, part, chances, bos))
        if progress is not None:
            progress(first + len(part))
    return numpy.concatenate(pieces) if pieces else numpy.empty((0, length), numpy.int32)


def _sample_together(network: Network, starts: Ids, chances: Chances, bos: int | None) -> Ids:
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
    return tokens


def drawn(logits: Floats, chances: Chances) -> Ids:
    """One token per row of ``logits`` [S, V]: the first whose summed probability exceeds ``chances`` [S]."""
    shares = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    sums = numpy.cumsum(shares, axis=1, dtype=numpy.float64)
    wanted = chances * sums[:, -1]
    found = [numpy.searchsorted(row, value, side="right") for row, value in zip(sums, wanted, strict=True)]
    result: Ids = numpy.minimum(numpy.array(found), logits.shape[1] - 1).astype(numpy.int32)
    return result
