"""Mamba: no attention."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ARCHITECTURES = (Architecture("mamba", Graph(recurrent="mamba", rope="none")),)
