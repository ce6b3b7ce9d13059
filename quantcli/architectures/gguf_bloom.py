"""BLOOM: linear biases, a norm of the embeddings."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BLOOM = Architecture(
    "bloom",
    Graph(
        norm="layer",
        embedding_norm=True,
        rope="none",
        alibi=8,
        fused_qkv=True,
        mlp="plain",
        activation="gelu_tanh",
    ),
)

ARCHITECTURES = (BLOOM,)
