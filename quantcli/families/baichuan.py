"""Llamas by other names: Baichuan (q, k and v in one matrix), XVERSE."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry
from quantcli.families.fields import count
from quantcli.families.llama import LLAMA
from quantcli.families.transforms import permuted
from quantcli.vocab import VocabHints

LAYOUT = (Entry("tensor_data_layout", "string", "layout"),)

BAICHUAN = LLAMA.derive(
    "baichuan",
    gguf_arch="baichuan",
    hf_architectures=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    model_types=("baichuan",),
    facts={
        "layout": "Meta AI original pth",
        "theta": decoder.stated_theta,
        "key_length": decoder.given_head_dim,
        "stated_kv_heads": count("num_key_value_heads", "n_kv_heads", default=None, most=decoder.MOST_HEADS),
    },
    metadata=(
        *(replace(entry, fact="stated_kv_heads") if entry.fact == "kv_heads" else entry for entry in decoder.METADATA),
        *decoder.ROPE_DIMS,
        *LAYOUT,
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.divided(
        "layers.{layer}.self_attn.W_pack",
        ("3*hidden", "hidden"),
        ("blk.{layer}.attn_q", "0", "hidden", permuted("heads")),
        ("blk.{layer}.attn_k", "hidden", "2*hidden", permuted("kv_heads")),
        ("blk.{layer}.attn_v", "2*hidden", "3*hidden", None),
    )
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP,
    vocab=VocabHints("baichuan"),
    vocab_for=None,
)

XVERSE = BAICHUAN.derive(
    "xverse",
    gguf_arch="xverse",
    hf_architectures=("XverseForCausalLM",),
    model_types=("xverse",),
    tensors=LLAMA.tensors,
    vocab=VocabHints("xverse"),
)

FAMILIES = (BAICHUAN, XVERSE)
