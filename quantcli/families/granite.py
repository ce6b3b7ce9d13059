"""Granite: a Llama with four multipliers; the logits are divided by ``logits_scaling``."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, real
from quantcli.families.llama import LLAMA

MULTIPLIERS = (
    Entry("attention.scale", "f32", "attention_scale"),
    Entry("embedding_scale", "f32", "embedding_scale"),
    Entry("residual_scale", "f32", "residual_scale"),
    Entry("logit_scale", "f32", "logit_scale"),
)

GRANITE = LLAMA.derive(
    "granite",
    gguf_arch="granite",
    hf_architectures=("GraniteForCausalLM",),
    model_types=("granite",),
    facts={
        "key_length": decoder.given_head_dim,
        "attention_scale": real("attention_multiplier", default=1.0),
        "embedding_scale": real("embedding_multiplier", default=1.0),
        "residual_scale": real("residual_multiplier", default=1.0),
        "logit_scale": real("logits_scaling", default=1.0, least=1e-6),
    },
    metadata=LLAMA.metadata + MULTIPLIERS,
    graph={"logit_scale": "divide"},
)

FAMILIES = (GRANITE,)
