"""Apertus: a Llama without a gate, with the activation xIELU and a norm for each head."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

APERTUS = Architecture("apertus", Graph(rope="neox", qk_norm="head", mlp="plain", activation="xielu"), head="required")

ARCHITECTURES = (APERTUS,)
