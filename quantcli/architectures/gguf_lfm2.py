"""LFM2: short convolutions and attention; the final norm goes by the name of the embeddings'."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

LFM2_GRAPH = Graph(
    rope="neox",
    qk_norm="head",
    recurrent="short_convolution",
    recurrent_layers="without_key_values",
    final_norm="token_embd_norm",
)
LFM2 = Architecture("lfm2", LFM2_GRAPH)
LFM2_MOE = Architecture("lfm2moe", LFM2_GRAPH, reads=keys.EXPERTS + keys.ROUTING)

ARCHITECTURES = (LFM2, LFM2_MOE)
