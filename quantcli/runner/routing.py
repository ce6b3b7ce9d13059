"""How a model routes its tokens to experts, read from metadata and checked."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.architectures import Graph
from quantcli.runner.schema import Reader

GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_chosen", 4: "root_softplus"}  # llama.cpp's numbers


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

    @property
    def biased(self) -> bool:
        """Whether a bias may count for the choice."""
        return self.gating != "softmax_chosen"


def read(reader: Reader, graph: Graph, layers: int, tokens: int) -> Routing | None:
    """What the metadata of a model with so many ``tokens`` say; None for one without experts. Raises BadConfig."""
    experts = reader.whole("expert_count", 0)
    if not experts:
        return None
    used = reader.whole("expert_used_count")
    if not 1 <= used <= experts:
        raise reader.bad("expert_used_count", f"is {used}: the model has {experts} experts")
    groups, groups_used = _groups(reader, experts, used)
    return Routing(
        experts=experts,
        used=used,
        gating=_gating(reader, graph, layers, tokens),
        norm=reader.flag("expert_weights_norm", graph.expert_norm),
        scale=reader.real("expert_weights_scale", 1.0) or 1.0,
        groups=groups,
        groups_used=groups_used,
        by_logits=graph.expert_first,
    )


def _groups(reader: Reader, experts: int, used: int) -> tuple[int, int]:
    """How many groups there are, and how many of them a token uses."""
    groups = reader.whole("expert_group_count", 0) or 1
    if experts % groups:
        raise reader.bad("expert_group_count", f"is {groups}: {experts} experts are no multiple of it")
    kept = reader.whole("expert_group_used_count", 0) or groups
    if kept > groups or kept * (experts // groups) < used:
        raise reader.bad(
            "expert_group_used_count", f"is {kept}: of {groups} groups of {experts // groups}, {used} experts are used"
        )
    return groups, kept


def _gating(reader: Reader, graph: Graph, layers: int, tokens: int) -> str:
    """How the scores of experts become weights; number 0 leaves it to the architecture."""
    number = reader.whole("expert_gating_func", 0)
    if number and number not in GATING:
        raise reader.unsupported("expert_gating_func", f"is {number}", "routing of this kind")
    if not number and graph.guessed_sigmoid and layers in graph.guessed_sigmoid[1:]:
        return "sigmoid" if tokens == graph.guessed_sigmoid[0] else graph.expert_gating
    return GATING.get(number, graph.expert_gating)
