"""GLM-4 (0414): q/k interleaved already, half of the head rotates, gate and up fused, four norms a layer."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder, nextn
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.transforms import joined, regrouped
from quantcli.vocab import VocabHints

END = "<|endoftext|>"
# What its successors look up by name, where tokenizer_config.json leaves it open.
TOKENS = {"bos": "[gMASK]", "eot": "<|user|>", "unknown": END, "eom": "<|observation|>"}

GLM4 = Family(
    name="glm4",
    gguf_arch="glm4",
    hf_architectures=("Glm4ForCausalLM",),
    model_types=("glm4",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(131072),
        "kv_heads": decoder.key_value_heads(2),
        "eps": decoder.rms_eps(1.5625e-7),
        "rope_dims": decoder.partial_rotary(0.5),
    },
    metadata=decoder.METADATA + decoder.ROPE_DIMS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + (
        TensorRule("layers.{layer}.post_self_attn_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_mlp_layernorm", "blk.{layer}.post_ffw_norm", decoder.VECTOR),
    )
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.FUSED_MLP,
    vocab=VocabHints("glm4", fallbacks={"bos": END, "eos": END, "unknown": END, "eot": "<|user|>"}),
)

# Where the rotation has sections, llama.cpp rotates halves: the neighbours of each head's rotated part are put apart.
HALVES = joined(
    regrouped((-1, "head_dim"), pick={1: (0, "rope_dims", 2)}),
    regrouped((-1, "head_dim"), pick={1: (1, "rope_dims", 2)}),
    regrouped((-1, "units", "half"), pick={1: (2, "units", 1)}, order=(1, 0, 2)),
) | regrouped(("units", -1, "half"), order=(1, 0, 2))

GLM4V = GLM4.derive(
    "glm4v",
    hf_architectures=("Glm4vForConditionalGeneration",),
    model_types=("glm4v", "glm4v_text"),
    facts={
        "half": lambda facts: facts.rope_dims // 2,
        "units": lambda facts: facts.quotient("head_dim", "half", ("head_dim", "half of the rotated part")),
    },
    tensors=tuple(
        replace(rule, transform=HALVES) if rule.target.endswith(("attn_q", "attn_k")) else rule for rule in GLM4.tensors
    ),
)

# The same with blocks that predict further tokens; a text begins with its end.
GLM_OCR = GLM4V.derive(
    "glm-ocr",
    hf_architectures=("GlmOcrForConditionalGeneration",),
    model_types=("glm_ocr", "glm_ocr_text"),
    facts=nextn.FACTS,
    metadata=GLM4V.metadata + nextn.METADATA,
    tensors=GLM4V.tensors + nextn.TENSORS,
    may_lack="predicts_further",
)

FAMILIES = (GLM4, GLM4V, GLM_OCR)
