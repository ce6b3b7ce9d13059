"""Which experts a token takes and how much of each: from the router's scores to places and weights.

Shapes: E experts in ``groups`` equal groups, of which each token uses ``used``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.operations import sigmoid, softmax, top_indices

LEAST_SUM = 2.0**-14  # weights are divided by no less, as llama.cpp does


@dataclass(frozen=True, slots=True)
class Routing:
    """How one model routes. ``gating``: what makes weights of the logits, see `Graph.expert_gating`."""

    experts: int
    used: int
    gating: str
    norm: bool  # the chosen weights are divided by their sum
    scale: float
    groups: int = 1
    groups_used: int = 1
    by_logits: bool = False  # the logits choose, not the weights

    def route(self, logits: Floats, bias: Floats | None) -> tuple[Ints, Floats]:
        """Experts of each token and their weights, [tokens, used] each, of logits [tokens, E].

        ``bias`` [E] counts for the choice alone (it evens out the experts' load).
        """
        if self.gating == "softmax_chosen":
            chosen = top_indices(logits, self.used)
            share = numpy.take_along_axis(logits, chosen, axis=1)
            softmax(share)
            return chosen, share
        share = self._shares(logits)
        scores = logits if self.by_logits else share
        chosen = top_indices(self._in_groups(scores if bias is None else scores + bias), self.used)
        share = numpy.take_along_axis(share, chosen, axis=1)
        if self.norm:
            share /= numpy.maximum(share.sum(axis=1, keepdims=True), numpy.float32(LEAST_SUM))
        return chosen, share * numpy.float32(self.scale)

    def _shares(self, logits: Floats) -> Floats:
        """The weights of all experts: [tokens, E]."""
        if self.gating == "sigmoid":
            return sigmoid(logits)
        if self.gating == "root_softplus":
            return numpy.sqrt(numpy.logaddexp(numpy.float32(0), logits))
        share = logits.copy()
        softmax(share)
        return share

    def _in_groups(self, scores: Floats) -> Floats:
        """Scores [tokens, E], -inf outside the best groups: those whose two best experts have the largest sum."""
        if self.groups <= 1:
            return scores
        grouped = scores.reshape(len(scores), self.groups, -1)
        best = -numpy.sort(-grouped, axis=2)[:, :, :2].sum(axis=2)  # [tokens, groups]
        kept = numpy.zeros(best.shape, bool)
        numpy.put_along_axis(kept, top_indices(best, self.groups_used), True, axis=1)
        result: Floats = numpy.where(kept[:, :, None], grouped, numpy.float32(-numpy.inf)).reshape(scores.shape)
        return result
