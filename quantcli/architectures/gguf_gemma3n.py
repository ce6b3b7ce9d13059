"""Gemma 3n: four streams side by side, a low-rank shortcut, embeddings for every layer."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GEMMA3N = Architecture("gemma3n", Graph(rope="neox", streams=True), reads=keys.SOFT_CAPS)

ARCHITECTURES = (GEMMA3N,)
