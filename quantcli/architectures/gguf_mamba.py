"""Mamba 1 and 2: a state instead of attention, and no MLP."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

MAMBA = Architecture("mamba", Graph(recurrent="mamba", rope="none", gaps=True))
MAMBA2 = Architecture("mamba2", Graph(recurrent="mamba2", rope="none", gaps=True))

ARCHITECTURES = (MAMBA, MAMBA2)
