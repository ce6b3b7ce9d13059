"""SmolLM3: a Llama whose every fourth layer has no rotary embedding (implied by the architecture's name)."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.llama import LLAMA

SMOLLM3 = LLAMA.derive(
    "smollm3",
    gguf_arch="smollm3",
    hf_architectures=("SmolLM3ForCausalLM",),
    model_types=("smollm3",),
    facts={
        "context": decoder.context(32768),
        "kv_heads": decoder.key_value_heads(4),
        "theta": decoder.theta(2e6),
        "key_length": decoder.given_head_dim,
    },
)

FAMILIES = (SMOLLM3,)
