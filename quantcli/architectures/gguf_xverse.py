"""XVERSE."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

XVERSE = Architecture("xverse", Graph(), head="required")

ARCHITECTURES = (XVERSE,)
