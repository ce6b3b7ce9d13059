"""Dream: a Qwen2 that sees both directions."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

DREAM = Architecture("dream", Graph(rope="neox", causal=False))

ARCHITECTURES = (DREAM,)
