"""Command-R: one norm a layer, attention and MLP side by side, a norm with weights of its own for each head."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

COMMAND_R = Architecture(
    "command-r", Graph(norm="layer", parallel=True, qk_norm="each"), reads=("logit_scale",), head="none"
)

ARCHITECTURES = (COMMAND_R,)
