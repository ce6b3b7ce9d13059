"""Spark X2.5: layers with a window rotate another part of their heads, one gate for each head's output."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count
from quantcli.families.laguna import window_rope_dims
from quantcli.vocab import VocabHints

SPARK = Family(
    name="spark2.5",
    harmless=("rope_parameters.*",),
    gguf_arch="spark2_5",
    hf_architectures=("Spark2_5ForCausalLM",),
    model_types=("spark2_5",),
    fixed={"gate_attn_act_mode": ("sigmoid",), "headwise_attn_output_gate": (True,), "hidden_act": ("gelu",)},
    facts={
        **decoder.FACTS,
        "head_dim": count("head_dim", most=decoder.MOST_WIDTH),
        "local_theta": decoder.LOCAL_THETA,
        "window": count("sliding_window"),
        "window_pattern": decoder.window_pattern(1),
        "rope_dims": decoder.partial_rotary(1.0),
        "window_rope_dims": window_rope_dims,
    },
    metadata=(
        *decoder.SIZES,
        *decoder.ROPE,
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        *decoder.LENGTHS,
        *decoder.VOCAB_SIZE,
        *decoder.WINDOWS,
        *decoder.ROPE_DIMS,
        Entry("rope.dimension_count_swa", "u32", "window_rope_dims"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + (
        TensorRule("layers.{layer}.self_attn.q_k_v_proj", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden")),
        TensorRule("layers.{layer}.self_attn.g_proj", "blk.{layer}.attn_gate", ("heads", "hidden")),
    )
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP,
    vocab=VocabHints("spark2_5"),
)

FAMILIES = (SPARK,)
