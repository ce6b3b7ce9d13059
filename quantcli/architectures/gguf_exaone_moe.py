"""K-EXAONE: windows, which alone rotate, and experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

EXAONE_MOE = Architecture(
    "exaone-moe",
    Graph(rope="neox", qk_norm="head", window_period=4, rope_in_windows=True, expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
)

ARCHITECTURES = (EXAONE_MOE,)
