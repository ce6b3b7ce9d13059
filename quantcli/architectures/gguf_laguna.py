"""Laguna: heads that differ between layers, a softplus gate on attention, windows with a rotation of their own."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

LAGUNA = Architecture(
    "laguna",
    Graph(
        rope="neox",
        qk_norm="head",
        attention_gate="softplus",
        window_period=4,
        window_last_full=False,
        scaled_window_rope=False,
        expert_gating="sigmoid",
        expert_norm=False,
    ),
    reads=keys.EXPERTS + keys.ROUTING + ("rope.dimension_count_swa",),
)

ARCHITECTURES = (LAGUNA,)
