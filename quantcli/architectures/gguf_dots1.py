"""dots.llm1: a Qwen3 with experts behind dense layers."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

DOTS1 = Architecture(
    "dots1",
    Graph(rope="neox", qk_norm="head", expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
    head="required",
)

ARCHITECTURES = (DOTS1,)
