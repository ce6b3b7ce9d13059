"""StarCoder (and SantaCoder) and StarCoder2."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

STARCODER2 = Architecture("starcoder2", Graph(norm="layer", rope="neox", mlp="plain", activation="gelu_tanh"))

STARCODER = Architecture(
    "starcoder",
    Graph(norm="layer", rope="none", learned_positions=True, fused_qkv=True, mlp="plain", activation="gelu_tanh"),
)

ARCHITECTURES = (
    STARCODER,
    STARCODER2,
)
