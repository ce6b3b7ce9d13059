"""ERNIE 4.5, dense: a Llama whose q and k are interleaved already; its first checkpoints have fused projections."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

FUSED = decoder.divided(
    "layers.{layer}.self_attn.qkv_proj",
    ("q+2*kv", "hidden"),
    ("blk.{layer}.attn_q", "0", "q", None),
    ("blk.{layer}.attn_k", "q", "q+kv", None),
    ("blk.{layer}.attn_v", "q+kv", "q+2*kv", None),
) + decoder.divided(
    "layers.{layer}.mlp.up_gate_proj",
    ("2*ff", "hidden"),
    ("blk.{layer}.ffn_gate", "0", "ff", None),
    ("blk.{layer}.ffn_up", "ff", "2*ff", None),
)

ERNIE4_5 = Family(
    name="ernie4.5",
    gguf_arch="ernie4_5",
    hf_architectures=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    model_types=("ernie4_5",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(131072),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(500000.0),
        "kv_heads": decoder.key_value_heads(2),
        "head_dim": count("head_dim", default=128, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
        "fused": lambda facts: any(name.endswith(".qkv_proj.weight") for name in facts.stored),
        "apart": lambda facts: not facts.fused,
    },
    metadata=decoder.METADATA,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.when(decoder.PROJECTIONS + decoder.GATED_MLP[:2], "apart")
    + decoder.when(FUSED, "fused")
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP[2:],
    prefixes=("ernie.",),
    vocab=VocabHints("ernie4_5", prefix_from_config=True),
)

# Its vision tower and what joins them are left out.
PADDLEOCR = ERNIE4_5.derive(
    "paddleocr",
    gguf_arch="paddleocr",
    hf_architectures=("PaddleOCRVLForConditionalGeneration",),
    model_types=("paddleocr_vl",),
    ignored=("mlp_AR.*",),
)

FAMILIES = (ERNIE4_5, PADDLEOCR)
