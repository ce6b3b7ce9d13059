"""Arcee (AFM): a Llama with squared ReLU and no gate."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ARCEE = Architecture("arcee", Graph(mlp="plain", activation="relu2"))

ARCHITECTURES = (ARCEE,)
