"""Falcon: attention and MLP side by side; llama-quantize has mixtures of its own for it."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

FALCON = Architecture(
    "falcon",
    Graph(norm="layer", rope="neox", fused_qkv=True, parallel=True, mlp="plain", activation="gelu"),
    recipe_variant="falcon",
)

ARCHITECTURES = (FALCON,)
