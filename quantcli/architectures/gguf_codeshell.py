"""CodeShell: a StarCoder that rotates."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

CODESHELL = Architecture(
    "codeshell", Graph(norm="layer", rope="neox", fused_qkv=True, mlp="plain", activation="gelu_tanh"), head="required"
)

ARCHITECTURES = (CODESHELL,)
