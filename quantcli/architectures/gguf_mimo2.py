"""MiMo V2: windows with key/value heads of their own, sinks, narrow values."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MIMO2 = Architecture(
    "mimo2",
    Graph(rope="neox", window_period=1, sinks=True, sinks_optional=True, expert_gating="sigmoid"),
    reads=keys.EXPERTS + keys.ROUTING + ("attention.value_scale",),
)

ARCHITECTURES = (MIMO2,)
