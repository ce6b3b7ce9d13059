"""InternLM 2: q, k and v in one matrix, key/value head by key/value head with its queries; q and k permuted."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.transforms import permuted, regrouped
from quantcli.vocab import VocabHints

GRID = ("kv_heads", "group+2", "head_dim")
QUERIES = regrouped(GRID, pick={1: (0, "group", 1)}) | permuted("heads")
KEYS = regrouped(GRID, pick={1: ("group", "group+1", 1)}) | permuted("kv_heads")
VALUES = regrouped(GRID, pick={1: ("group+1", "group+2", 1)})
WQKV = "layers.{layer}.attention.wqkv"

INTERNLM2 = Family(
    name="internlm2",
    gguf_arch="internlm2",
    hf_architectures=("InternLM2ForCausalLM",),
    model_types=("internlm2",),
    facts={
        **decoder.FACTS,
        "group": lambda facts: facts.quotient("heads", "kv_heads", ("num_attention_heads", "num_key_value_heads")),
    },
    metadata=decoder.METADATA,
    tensors=(
        TensorRule(WQKV, "blk.{layer}.attn_q", ("q+2*kv", "hidden"), QUERIES),
        TensorRule(WQKV, "blk.{layer}.attn_k", ("q+2*kv", "hidden"), KEYS),
        TensorRule(WQKV, "blk.{layer}.attn_v", ("q+2*kv", "hidden"), VALUES),
        TensorRule("layers.{layer}.attention.wo", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule("layers.{layer}.attention_norm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.ffn_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.feed_forward.w1", "blk.{layer}.ffn_gate", ("ff", "hidden")),
        TensorRule("layers.{layer}.feed_forward.w2", "blk.{layer}.ffn_down", ("hidden", "ff")),
        TensorRule("layers.{layer}.feed_forward.w3", "blk.{layer}.ffn_up", ("ff", "hidden")),
        TensorRule("tok_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("output", "output", ("vocab", "hidden"), optional="may_tie"),
        *decoder.FINAL_NORM,
    ),
    vocab=VocabHints("internlm2", space_prefix="stated", unused="[UNUSED", texts={"eos": "<|im_end|>"}),
)

FAMILIES = (INTERNLM2,)
