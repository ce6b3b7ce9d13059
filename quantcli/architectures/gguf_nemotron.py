"""Nemotron: squared ReLU. Its files name both epsilons; the norms are LayerNorms."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

NEMOTRON = Architecture(
    "nemotron",
    Graph(norm="layer", rope="neox", mlp="plain", activation="relu2"),
    harmless=(keys.EPSILON["rms"],),
    head="required",
)

ARCHITECTURES = (NEMOTRON,)
