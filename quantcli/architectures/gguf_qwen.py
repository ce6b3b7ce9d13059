"""Qwen2 and Qwen3, dense and with experts."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

QWEN2_GRAPH = Graph(rope="neox")
QWEN3_GRAPH = Graph(rope="neox", qk_norm="head")
QWEN3_RANKING = replace(QWEN3_GRAPH, classifier="softmax")

QWEN2 = Architecture("qwen2", QWEN2_GRAPH, layers_of_70b=80)
QWEN2_MOE = Architecture(
    "qwen2moe", replace(QWEN2_GRAPH, expert_norm=False, shared_expert_gate=True), reads=keys.EXPERTS, head="required"
)
QWEN3 = Architecture("qwen3", QWEN3_RANKING)
QWEN3_MOE = Architecture("qwen3moe", QWEN3_GRAPH, reads=keys.EXPERTS)

# Deepstack layers take in images alone.
QWEN2_VL = Architecture("qwen2vl", QWEN2_GRAPH)
QWEN3_VL = Architecture("qwen3vl", QWEN3_RANKING, harmless=("n_deepstack_layers",))

QWEN3_NEXT_GRAPH = Graph(
    rope="neox",
    qk_norm="head",
    second_norm="post_attention_norm",
    gated_attention=True,
    recurrent="delta",
    recurrent_layers="listed",
    shared_expert_gate=True,
)
QWEN3_NEXT = Architecture("qwen3next", QWEN3_NEXT_GRAPH, reads=keys.EXPERTS)
QWEN35 = Architecture("qwen35", replace(QWEN3_NEXT_GRAPH, tiled_heads=True))
QWEN35_MOE = replace(QWEN35, name="qwen35moe", reads=keys.EXPERTS)

ARCHITECTURES = (QWEN2_VL, QWEN3_VL, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE, QWEN3_NEXT, QWEN35, QWEN35_MOE)
