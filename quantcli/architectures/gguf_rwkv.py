"""RWKV 6 and 7: time mix and channel mix."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

RWKV6 = Architecture("rwkv6", Graph(norm="layer", rope="none", embedding_norm=True, recurrent="rwkv6"), head="required")
RWKV7 = Architecture("rwkv7", Graph(norm="layer", rope="none", embedding_norm=True, recurrent="rwkv7"), head="required")

ARCHITECTURES = (RWKV6, RWKV7)
