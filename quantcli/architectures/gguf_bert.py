"""BERT: an encoder."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BERT = Architecture(
    "bert",
    Graph(
        norm="layer",
        pre_norm=False,
        post_norm=True,
        rope="none",
        learned_positions=True,
        causal=False,
        mlp="plain",
        activation="gelu",
    ),
)

ARCHITECTURES = (BERT,)
