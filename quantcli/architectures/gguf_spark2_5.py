"""Spark X2.5: windows with a rotation of their own, one gate for each head's output."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

SPARK = Architecture(
    "spark2_5",
    Graph(rope="neox", fused_qkv=True, attention_gate="sigmoid", window_period=1, activation="gelu_tanh"),
    reads=("rope.dimension_count_swa",),
)

ARCHITECTURES = (SPARK,)
