"""OpenELM: heads and widths differ between layers."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

OPENELM = Architecture("openelm", Graph(rope="neox", fused_qkv=True, qk_norm="head"), head="none")

ARCHITECTURES = (OPENELM,)
