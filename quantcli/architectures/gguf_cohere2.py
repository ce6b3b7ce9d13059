"""Command R7B: attention and MLP side by side; three of four layers have a window, and only they rotate."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

COHERE2 = Architecture(
    "cohere2",
    Graph(norm="layer", parallel=True, window_period=4, rope_in_windows=True),
    reads=("logit_scale",),
    head="none",
)

ARCHITECTURES = (COHERE2,)
