"""ERNIE 4.5 with experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

ERNIE_MOE = Architecture(
    "ernie4_5-moe", Graph(), reads=keys.EXPERTS + keys.ROUTING, harmless=("interleave_moe_layer_step",)
)

ARCHITECTURES = (ERNIE_MOE,)
