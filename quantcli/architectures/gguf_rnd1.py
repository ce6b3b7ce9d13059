"""RND1: attention looks both ways."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

RND1 = Architecture("rnd1", Graph(rope="neox", qk_norm="head", causal=False), reads=keys.EXPERTS)

ARCHITECTURES = (RND1,)
