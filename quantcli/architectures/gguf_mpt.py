"""MPT: linear biases or learned positions, as the file says."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MPT = Architecture(
    "mpt",
    Graph(
        norm="layer",
        qk_norm="full",
        rope="none",
        learned_positions=True,
        alibi=0,
        fused_qkv=True,
        mlp="plain",
        activation="gelu",
    ),
    reads=keys.CLAMP,
)

ARCHITECTURES = (MPT,)
