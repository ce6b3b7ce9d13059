"""StarCoder2."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

STARCODER2 = Architecture("starcoder2", Graph(norm="layer", rope="neox", mlp="plain", activation="gelu_tanh"))

ARCHITECTURES = (STARCODER2,)
