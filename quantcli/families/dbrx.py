"""DBRX: fused q/k/v whose values are clamped, LayerNorm, experts in one matrix [experts * width, hidden] a kind."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count, real
from quantcli.families.transforms import Transform, shaped, transposed
from quantcli.vocab import VocabHints

BY_EXPERT = shaped("experts", "expert_ff", "hidden")


def stack(source: str, role: str, transform: Transform) -> TensorRule:
    source, target = f"blocks.{{layer}}.ffn.experts.mlp.{source}", f"blk.{{layer}}.ffn_{role}_exps.weight"
    return TensorRule(source, target, ("experts*expert_ff", "hidden"), transform, exact=True)


DBRX = Family(
    name="dbrx",
    harmless=(
        "ffn_act_fn",
        "moe_normalize_expert_weights",
        "rope_theta",
    ),
    gguf_arch="dbrx",
    hf_architectures=("DbrxForCausalLM",),
    model_types=("dbrx",),
    facts={
        **decoder.FACTS,
        "context": count("max_seq_len", default=2048),
        "hidden": count("d_model", most=decoder.MOST_WIDTH),
        "ff": count("ffn_config.ffn_hidden_size", most=decoder.MOST_WIDTH),
        "expert_ff": lambda facts: facts.ff,
        "kv_heads": count("attn_config.kv_n_heads", default=1, most=decoder.MOST_HEADS),
        "theta": real("attn_config.rope_theta", default=10000.0, least=1e-6),
        "clamp": real("attn_config.clip_qkv", default=None),
        "experts": count("ffn_config.moe_num_experts", default=4, most=decoder.MOST_EXPERTS),
        "experts_used": count("ffn_config.moe_top_k", default=1, most=decoder.MOST_EXPERTS),
        "eps": 1e-5,
    },
    metadata=(
        *decoder.SIZES,
        *decoder.ROPE[-1:],
        Entry("attention.clamp_kqv", "f32", "clamp"),
        *decoder.EXPERT_COUNTS,
        *decoder.LAYER_NORM,
    ),
    tensors=(
        TensorRule("wte", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.HEAD,
        TensorRule("norm_f", "output_norm", decoder.VECTOR),
        TensorRule("blocks.{layer}.norm_attn_norm.norm_1", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("blocks.{layer}.norm_attn_norm.norm_2", "blk.{layer}.attn_output_norm", decoder.VECTOR),
        TensorRule("blocks.{layer}.norm_attn_norm.attn.Wqkv", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden")),
        TensorRule("blocks.{layer}.norm_attn_norm.attn.out_proj", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule("blocks.{layer}.ffn.router.layer", "blk.{layer}.ffn_gate_inp", ("experts", "hidden")),
        stack("w1", "gate", BY_EXPERT),
        stack("v1", "up", BY_EXPERT),
        stack("w2", "down", BY_EXPERT | transposed()),
    ),
    prefixes=("transformer.",),
    not_float32=("ffn_gate_inp",),
    vocab=VocabHints("dbrx"),
)

FAMILIES = (DBRX,)
