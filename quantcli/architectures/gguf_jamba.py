"""Jamba: Mamba and attention without positions, an MLP or experts behind each."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

JAMBA = Architecture(
    "jamba",
    Graph(rope="none", recurrent="mamba", recurrent_layers="without_key_values", expert_norm=False),
    reads=keys.EXPERTS,
)

ARCHITECTURES = (JAMBA,)
