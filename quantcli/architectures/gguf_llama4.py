"""Llama 4: windows of chunks, no rotation in every fourth layer, whose queries are scaled by their position."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

LLAMA4 = Architecture(
    "llama4",
    Graph(
        rope_skip_period=4,
        window_period=4,
        chunked=8192,
        unit_qk_norm=128,
        temperature=(8192, 0.1),
        expert_gating="sigmoid",
        expert_norm=False,
        expert_first=True,
    ),
    reads=keys.EXPERTS,
    harmless=("interleave_moe_layer_step",),
)

ARCHITECTURES = (LLAMA4,)
