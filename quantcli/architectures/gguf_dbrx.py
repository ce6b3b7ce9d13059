"""DBRX: LayerNorm without bias, fused q/k/v that are clamped."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

DBRX = Architecture(
    "dbrx",
    Graph(norm="layer", rope="neox", fused_qkv=True, second_norm="attn_output_norm"),
    reads=keys.EXPERTS + keys.CLAMP,
    head="required",
)

ARCHITECTURES = (DBRX,)
