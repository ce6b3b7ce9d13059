"""EXAONE 4: norms after attention and MLP only, a norm for each head; windows, and rotation where they are."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

EXAONE4 = Architecture(
    "exaone4",
    Graph(rope="neox", pre_norm=False, post_norm=True, qk_norm="head", window_period=4, rope_in_windows=True),
)

ARCHITECTURES = (EXAONE4,)
