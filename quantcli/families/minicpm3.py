"""MiniCPM 3 and PLM: latent attention whose keys and values are made again for every position."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.deepseek import ATTENTION, DEEPSEEK2
from quantcli.families.phi3 import factors
from quantcli.vocab import VocabHints

SIZES = (
    *decoder.SIZES,
    *decoder.RMS,
    *decoder.VOCAB_SIZE,
    Entry("attention.q_lora_rank", "u32", "q_rank"),
    Entry("attention.kv_lora_rank", "u32", "kv_rank"),
    Entry("attention.key_length", "u32", "key"),
    *decoder.ROPE_DIMS,
)
PROJECTIONS = (
    *(rule for rule in DEEPSEEK2.tensors if rule.source.startswith(ATTENTION) and "kv_b_proj" not in rule.source),
    TensorRule(ATTENTION + "kv_b_proj", "blk.{layer}.attn_kv_b", ("heads*nope+heads*value", "kv_rank")),
)

MINICPM3 = DEEPSEEK2.derive(
    "minicpm3",
    harmless=("original_max_position_embeddings",),
    gguf_arch="minicpm3",
    hf_architectures=("MiniCPM3ForCausalLM",),
    model_types=("minicpm3",),
    fixed={"scale_emb": (12,), "scale_depth": (1.4,), "dim_model_base": (256,)},  # constants of llama.cpp
    facts={"kv_heads": decoder.KV_HEADS},
    metadata=SIZES,
    tensors=decoder.TOP + decoder.PRE_NORMS + PROJECTIONS + decoder.GATED_MLP,
    extras=(factors("long"), factors("short")),
    vocab=VocabHints("minicpm3"),
)

PLM = MINICPM3.derive(
    "plm",
    gguf_arch="plm",
    hf_architectures=("PLMForCausalLM",),
    model_types=("plm",),
    fixed={},
    metadata=(*SIZES, *decoder.ROPE, Entry("attention.value_length", "u32", "value")),
    tensors=decoder.EMBEDDINGS
    + decoder.FINAL_NORM
    + decoder.PRE_NORMS
    + PROJECTIONS
    + decoder.plain_mlp("up_proj", "down_proj"),
    extras=(),
    vocab=VocabHints("plm"),
)

FAMILIES = (MINICPM3, PLM)
