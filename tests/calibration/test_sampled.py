"""Tokens are drawn as their probabilities say."""

from __future__ import annotations

import numpy
import pytest

from quantcli.calibration.sampled import PIECE, drawn


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
