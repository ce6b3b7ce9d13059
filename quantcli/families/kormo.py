"""KORMo: written as Qwen2, without biases."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.qwen import QWEN2
from quantcli.vocab import VocabHints

KORMO = QWEN2.derive(
    "kormo",
    hf_architectures=("KORMoForCausalLM",),
    model_types=("kormo",),
    facts={"kv_heads": decoder.KV_HEADS, "eps": decoder.rms_eps(1e-5)},
    tensors=decoder.TENSORS,
    vocab=VocabHints("qwen2", pre=("kormo",)),
    spellings={".pre_attention_layernorm.": ".input_layernorm.", ".pre_mlp_layernorm.": ".post_attention_layernorm."},
)

FAMILIES = (KORMO,)
