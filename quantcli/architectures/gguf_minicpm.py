"""MiniCPM: a Llama with multipliers; files without them mean those of its first models."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MINICPM = Architecture("minicpm", Graph(logit_scale="divide"), reads=keys.MULTIPLIERS[1:], needs=keys.MULTIPLIERS[1:])

ARCHITECTURES = (MINICPM,)
