"""ERNIE 4.5."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ERNIE4_5 = Architecture("ernie4_5", Graph())

ARCHITECTURES = (ERNIE4_5,)
