"""Diffusion language models with experts: attention looks both ways, a mask token stands for what is to be written."""

from __future__ import annotations

from quantcli.families.declaration import Entry
from quantcli.families.fields import count
from quantcli.families.qwen import QWEN3_MOE
from quantcli.vocab import VocabHints

CAUSAL = (Entry("attention.causal", "boolean", "causal"),)
MASK = (Entry("tokenizer.ggml.mask_token_id", "u32", "mask_token"),)

LLADA_MOE = QWEN3_MOE.derive(
    "llada-moe",
    harmless=(
        "moe_layer_freq",
        "first_k_dense_replace",
    ),
    gguf_arch="llada-moe",
    hf_architectures=("LLaDAMoEModelLM", "LLaDAMoEModel"),
    model_types=(),
    facts={
        "kv_heads": count("num_key_value_heads", default="=heads"),
        "expert_ff": count("expert_intermediate_size"),
        "causal": False,
        "shift": False,
        "mask_token": 156895,  # llama.cpp's converter writes this constant
    },
    metadata=QWEN3_MOE.metadata + CAUSAL + MASK + (Entry("diffusion.shift_logits", "boolean", "shift"),),
    vocab=VocabHints("llada-moe"),
)

RND1 = QWEN3_MOE.derive(
    "rnd1",
    gguf_arch="rnd1",
    hf_architectures=("RND1",),
    model_types=("rnd1",),
    facts={"causal": False, "mask_token": count("mask_token_id", default=None, least=0)},
    metadata=QWEN3_MOE.metadata + CAUSAL + MASK,
    vocab=VocabHints("rnd1"),
)

FAMILIES = (LLADA_MOE, RND1)
