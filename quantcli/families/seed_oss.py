"""Seed-OSS: a Qwen2 whose second norm keeps the name that transformers gives it."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.fields import count
from quantcli.families.qwen import QWEN2

SEED_OSS = QWEN2.derive(
    "seed-oss",
    gguf_arch="seed_oss",
    hf_architectures=("SeedOssForCausalLM",),
    model_types=("seed_oss",),
    facts={
        "context": decoder.context(524288),
        "kv_heads": decoder.key_value_heads(8),
        "head_dim": count("head_dim", default=128, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
    },
    tensors=decoder.TOP
    + decoder.PRE_NORMS[:1]
    + decoder.POST_NORMS[:1]
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP,
)

FAMILIES = (SEED_OSS,)
