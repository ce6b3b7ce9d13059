"""Which experts a token takes and how much of each: from the router's logits to places and weights.

Shapes: E experts in equal groups, of which each token uses a few.
"""

from __future__ import annotations

import numpy

from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.operations import sigmoid, softmax, top_indices
from quantcli.runner.routing import Routing

LEAST_SUM = 2.0**-14  # weights are divided by no less, as llama.cpp does


def choose(routing: Routing, logits: Floats, bias: Floats | None) -> tuple[Ints, Floats]:
    """Experts of each token and their weights, [tokens, used] each, of logits [tokens, E].

    ``bias`` [E] counts for the choice alone (it evens out the experts' load).
    """
    if routing.gating == "softmax_chosen":
        chosen = top_indices(logits, routing.used)
        share = numpy.take_along_axis(logits, chosen, axis=1)
        softmax(share)
        return chosen, share
    share = _shares(routing.gating, logits)
    scores = logits if routing.by_logits else share
    chosen = top_indices(_in_groups(routing, scores if bias is None else scores + bias), routing.used)
    share = numpy.take_along_axis(share, chosen, axis=1)
    if routing.norm:
        share /= numpy.maximum(share.sum(axis=1, keepdims=True), numpy.float32(LEAST_SUM))
    return chosen, share * numpy.float32(routing.scale)


def _shares(gating: str, logits: Floats) -> Floats:
    """The weights of all experts: [tokens, E]."""
    if gating == "sigmoid":
        return sigmoid(logits)
    if gating == "root_softplus":
        return numpy.sqrt(numpy.logaddexp(numpy.float32(0), logits))
    share = logits.copy()
    softmax(share)
    return share


def _in_groups(routing: Routing, scores: Floats) -> Floats:
    """Scores [tokens, E], -inf outside the best groups: those whose two best experts have the largest sum."""
    if routing.groups <= 1:
        return scores
    grouped = scores.reshape(len(scores), routing.groups, -1)
    best = -numpy.sort(-grouped, axis=2)[:, :, :2].sum(axis=2)  # [tokens, groups]
    kept = numpy.zeros(best.shape, bool)
    numpy.put_along_axis(kept, top_indices(best, routing.groups_used), True, axis=1)
    result: Floats = numpy.where(kept[:, :, None], grouped, numpy.float32(-numpy.inf)).reshape(scores.shape)
    return result
