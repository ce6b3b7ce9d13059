"""EXAONE 3 (a Llama) and 4: norms after attention and MLP only, one for each head; windows, rotation where they are."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

EXAONE4 = Architecture(
    "exaone4",
    Graph(
        rope="neox",
        pre_norm=False,
        post_norm=True,
        qk_norm="head",
        window_period=4,
        window_depth=64,
        rope_in_windows=True,
    ),
)

EXAONE = Architecture("exaone", Graph(rope="neox"), harmless=(keys.EPSILON["layer"],))

ARCHITECTURES = (EXAONE, EXAONE4)
