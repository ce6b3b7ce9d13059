"""Trinity (AFMoE): gated attention, four norms a layer, embeddings scaled by sqrt(hidden)."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

AFMOE = Architecture(
    "afmoe",
    Graph(
        rope="neox",
        rope_skip_period=4,
        post_norm=True,
        qk_norm="head",
        attention_gate="sigmoid",
        window_period=4,
        expert_gating="sigmoid",
        expert_norm=False,
        embedding_scale="sqrt_hidden",
    ),
    reads=keys.EXPERTS + keys.ROUTING,
)

ARCHITECTURES = (AFMOE,)
