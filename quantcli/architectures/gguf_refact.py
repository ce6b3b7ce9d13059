"""Refact: linear biases."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

REFACT = Architecture("refact", Graph(rope="none", alibi=8))

ARCHITECTURES = (REFACT,)
