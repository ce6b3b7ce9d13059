"""Jais: linear biases, scores divided by the width of a head; and what llama-quantize knows of Jais 2."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

JAIS = Architecture(
    "jais",
    Graph(norm="layer", rope="none", alibi=0, fused_qkv=True, attention_scale="inverse"),
    head="required",
)

ARCHITECTURES = (
    JAIS,
    Architecture("jais2", layers_of_70b=68),
)
