"""DeciLM and Nemotron NAS: layers may lack attention or MLP."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

DECI = Architecture("deci", Graph(gaps=True), layers_of_70b=80)

ARCHITECTURES = (DECI,)
