"""Nemotron: squared ReLU. Its files name both epsilons; the norms are LayerNorms, in the hybrids RMS norms."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

NEMOTRON = Architecture(
    "nemotron",
    Graph(norm="layer", rope="neox", mlp="plain", activation="relu2"),
    harmless=(keys.EPSILON["rms"],),
    head="required",
)

NEMOTRON_H_GRAPH = Graph(
    rope="none",
    mlp="plain",
    activation="relu2",
    recurrent="mamba2",
    recurrent_layers="without_key_values",
    gaps=True,
    second_norm="attn_norm",
    expert_gating="sigmoid",
    gated_experts=False,
)
WORDS = (keys.EPSILON["layer"], "rope.dimension_count", "rope.freq_base", "rope.scaling.finetuned")
NEMOTRON_H = Architecture("nemotron_h", NEMOTRON_H_GRAPH, harmless=WORDS)
NEMOTRON_H_MOE = Architecture("nemotron_h_moe", NEMOTRON_H_GRAPH, reads=keys.EXPERTS + keys.ROUTING, harmless=WORDS)

ARCHITECTURES = (NEMOTRON, NEMOTRON_H, NEMOTRON_H_MOE)
