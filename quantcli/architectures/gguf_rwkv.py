"""RWKV 6 and 7: time mix and channel mix."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures.architecture import Architecture, Graph

RWKV6_GRAPH = Graph(
    norm="layer", rope="none", embedding_norm=True, second_norm="attn_norm_2", activation="relu2", recurrent="rwkv6"
)
RWKV6 = Architecture("rwkv6", RWKV6_GRAPH, head="required")
RWKV7 = Architecture("rwkv7", replace(RWKV6_GRAPH, recurrent="rwkv7"), head="required")

ARCHITECTURES = (RWKV6, RWKV7)
