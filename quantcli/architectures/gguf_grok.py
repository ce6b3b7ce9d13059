"""Grok 1 and 2: norms before and after, capped scores, perhaps an MLP beside the experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GROK = Architecture(
    "grok",
    Graph(
        rope="neox",
        post_norm=True,
        attention_post_norm="attn_output_norm",
        activation="gelu_tanh",
        beside_experts=True,
    ),
    reads=keys.EXPERTS
    + keys.SOFT_CAPS
    + ("attention.output_scale", "embedding_scale", "logit_scale", "attention.temperature_length"),
    harmless=("router_logit_softcapping", "attention.layer_norm_epsilon"),
)

ARCHITECTURES = (GROK,)
