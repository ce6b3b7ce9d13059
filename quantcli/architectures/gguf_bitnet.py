"""BitNet b1.58: norms before the matrices that lead back."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BITNET = Architecture("bitnet", Graph(rope="neox", inner_norm=True), head="none")

ARCHITECTURES = (BITNET,)
