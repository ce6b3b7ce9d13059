"""Falcon: attention and MLP side by side, with mixtures of its own in llama-quantize; Falcon-H1: attention and Mamba 2
side by side, then the MLP."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

FALCON = Architecture(
    "falcon",
    Graph(norm="layer", rope="neox", fused_qkv=True, parallel=True, mlp="plain", activation="gelu"),
    recipe_variant="falcon",
)

FALCON_H1 = Architecture(
    "falcon-h1", Graph(rope="neox", recurrent="mamba2", recurrent_layers="beside", bare_norms=("ffn_norm",))
)

ARCHITECTURES = (FALCON, FALCON_H1)
