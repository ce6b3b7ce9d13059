"""StableLM."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

ARCHITECTURES = (
    Architecture("stablelm", Graph(norm="layer", rope="neox"), reads=keys.PARALLEL_RESIDUAL, head="required"),
)
