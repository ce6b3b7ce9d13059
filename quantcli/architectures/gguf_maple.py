"""Maple: bounded gates of experts, rotation in layers with a window alone."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MAPLE = Architecture(
    "maple",
    Graph(rope="neox", qk_norm="head", window_period=1, rope_in_windows=True, limited="gate"),
    reads=keys.EXPERTS,
    head="required",
)

ARCHITECTURES = (MAPLE,)
