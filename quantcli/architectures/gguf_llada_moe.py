"""LLaDA with experts: attention looks both ways."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

LLADA_MOE = Architecture(
    "llada-moe", Graph(rope="neox", qk_norm="head", causal=False, expert_norm=False), reads=keys.EXPERTS
)

ARCHITECTURES = (LLADA_MOE,)
