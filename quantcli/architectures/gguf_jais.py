"""Jais: linear biases, scores divided by the width of a head; Jais 2: LayerNorm, squared ReLU."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

JAIS = Architecture(
    "jais",
    Graph(norm="layer", rope="none", alibi=0, fused_qkv=True, attention_scale="inverse"),
    head="required",
)

JAIS2 = Architecture(
    "jais2",
    Graph(norm="layer", rope="neox", mlp="plain", activation="relu2"),
    layers_of_70b=68,
)

ARCHITECTURES = (
    JAIS,
    JAIS2,
)
