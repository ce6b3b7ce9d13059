"""Tokens are drawn as their probabilities say."""

from __future__ import annotations

from typing import cast

import numpy
import pytest

from quantcli.calibration.sampled import CACHE_BYTES, FEWEST, PIECE, drawn, sample
from quantcli.runner.arrays import Floats, Ids
from quantcli.runner.network import Network


@pytest.mark.parametrize("vocabulary", [1, 2, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7, 5000])
def test_the_token_where_the_running_sum_passes_the_chance(vocabulary: int) -> None:
    random = numpy.random.default_rng(vocabulary)
    logits = (4 * random.standard_normal((500, vocabulary))).astype(numpy.float32)
    chances = random.random(500)
    wide = numpy.exp(logits.astype(numpy.float64))
    sums = numpy.cumsum(wide, axis=1) / wide.sum(axis=1, keepdims=True)
    expected = (sums <= chances[:, None]).sum(axis=1)
    found = drawn(logits, chances)
    near = numpy.abs(sums[numpy.arange(500), numpy.minimum(expected, found)] - chances) < 1e-6  # float32 decides
    assert ((found == expected) | near).all()
    assert (found == expected).mean() > 0.98


def test_chances_at_the_ends() -> None:
    """0 gives the first token that can be, nearly 1 the last: never one that cannot."""
    logits = numpy.full((2, 3 * PIECE), -numpy.inf, numpy.float32)
    logits[:, [PIECE + 3, 2 * PIECE + 5]] = 0
    assert drawn(logits, numpy.array([0.0, 1 - 2**-53])).tolist() == [PIECE + 3, 2 * PIECE + 5]


class Even:
    """A network to which every token is as likely: what `sample` asks of one."""

    class Cache:
        bytes = CACHE_BYTES  # as many sequences side by side as there are at least

    def new_cache(self, count: int, length: int) -> Cache:
        return self.Cache()

    def forward(self, tokens: Ids, cache: Cache) -> Floats:
        return numpy.zeros((*tokens.shape, 50), numpy.float32)


def test_how_many_tokens_there_are_is_told_while_they_come() -> None:
    told: list[int] = []
    starts = numpy.arange(FEWEST + 3, dtype=numpy.int32) % 50
    tokens = sample(cast(Network, Even()), starts, 8, bos=None, seed=1, progress=told.append)
    assert tokens.shape == (len(starts), 8) and (tokens[:, 0] == starts).all() and len(numpy.unique(tokens)) > 30
    assert told == sorted(told) and len(told) > 8 and told[-1] == tokens.size
