"""Orion: a Llama with LayerNorm."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ORION = Architecture("orion", Graph(norm="layer", rope="neox"), head="required")

ARCHITECTURES = (ORION,)
