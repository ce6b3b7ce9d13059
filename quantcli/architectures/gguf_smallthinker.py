"""SmallThinker: the router reads what attention reads before its norm; ReLU experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

SMALLTHINKER = Architecture(
    "smallthinker",
    Graph(
        rope="neox",
        rope_in_windows=True,
        rope_all_layers=4,
        window_period=4,
        window_last_full=False,
        window_size=4096,
        activation="relu",
        early_router=True,
    ),
    reads=keys.EXPERTS + keys.ROUTING,
)

ARCHITECTURES = (SMALLTHINKER,)
