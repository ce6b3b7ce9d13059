"""Mellum 2: a Qwen3 with experts and windows."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MELLUM = Architecture(
    "mellum",
    Graph(rope="neox", qk_norm="head", window_period=4, scaled_window_rope=False, own_window_base=False),
    reads=keys.EXPERTS,
)

ARCHITECTURES = (MELLUM,)
