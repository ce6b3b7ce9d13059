"""BLOOM and MPT: linear biases (ALiBi) instead of positions; q, k and v in one matrix."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count, real
from quantcli.families.older import GPT_NEOX, NEOX_QKV, NO_KV_HEADS
from quantcli.vocab import VocabHints

BLOOM = GPT_NEOX.derive(
    "bloom",
    gguf_arch="bloom",
    hf_architectures=("BloomForCausalLM",),
    model_types=("bloom",),
    facts={
        "layers": decoder.LAYERS,
        "hidden": count("hidden_size", "n_embed", "n_embd", most=decoder.MOST_WIDTH),
        "context": count("seq_length", default="=hidden"),
        "ff": decoder.four_times_hidden,
    },
    metadata=decoder.SIZES + decoder.LAYER_NORM,
    tensors=(
        TensorRule("word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("word_embeddings_layernorm", "token_embd_norm", decoder.VECTOR, bias="required"),
        *decoder.HEAD,
        TensorRule("ln_f", "output_norm", decoder.VECTOR, bias="required"),
        TensorRule("h.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR, bias="required"),
        TensorRule("h.{layer}.post_attention_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR, bias="required"),
        TensorRule(
            "h.{layer}.self_attention.query_key_value", "blk.{layer}.attn_qkv", ("3*q", "hidden"), NEOX_QKV,
            bias="required",
        ),
        TensorRule(
            "h.{layer}.self_attention.dense", "blk.{layer}.attn_output", ("hidden", "q"), bias="required"
        ),
        *decoder.plain_mlp("dense_h_to_4h", "dense_4h_to_h", "h.{layer}.mlp."),
    ),
    prefixes=("transformer.",),
    vocab=VocabHints("bloom"),
)  # fmt: skip

BLOCK = "blocks.{layer}."

MPT = Family(
    name="mpt",
    gguf_arch="mpt",
    hf_architectures=("MPTForCausalLM", "MptForCausalLM"),
    model_types=("mpt",),
    facts={
        **decoder.CORE_FACTS,
        "layers": count("n_layers", "num_hidden_layers", most=decoder.MOST_LAYERS),
        "hidden": count("d_model", "hidden_size", most=decoder.MOST_WIDTH),
        "ff": decoder.four_times_hidden,
        "context": count("max_seq_len", default=2048),
        "eps": 1e-5,
        "stated_kv_heads": count("attn_config.kv_n_heads", default=None, most=decoder.MOST_HEADS),
        "kv_heads": count("attn_config.kv_n_heads", default="=heads", most=decoder.MOST_HEADS),
        "head_dim": decoder.head_dim,
        "kv": decoder.key_value_width,
        "clamp": real("attn_config.clip_qkv", default=None, least=0),
        "alibi": lambda facts: (
            facts.read(real("attn_config.alibi_bias_max", default=8.0, least=0))
            if facts.find("attn_config.alibi") is not False
            else 0.0
        ),
    },
    metadata=NO_KV_HEADS
    + decoder.LAYER_NORM
    + (
        Entry("attention.head_count_kv", "u32", "stated_kv_heads"),
        Entry("attention.clamp_kqv", "f32", "clamp"),
        Entry("attention.max_alibi_bias", "f32", "alibi"),
    ),
    tensors=(
        TensorRule("wte", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("wpe", "position_embd", ("context", "hidden"), bias="none", optional=True),
        *decoder.HEAD,
        TensorRule("norm_f", "output_norm", decoder.VECTOR),
        TensorRule(BLOCK + "norm_1", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(BLOCK + "attn.Wqkv", "blk.{layer}.attn_qkv", ("hidden+2*kv", "hidden")),
        TensorRule(BLOCK + "attn.q_ln", "blk.{layer}.attn_q_norm", decoder.VECTOR, optional=True),
        TensorRule(BLOCK + "attn.k_ln", "blk.{layer}.attn_k_norm", ("kv",), optional=True),
        TensorRule(BLOCK + "attn.out_proj", "blk.{layer}.attn_output", ("hidden", "hidden")),
        TensorRule(BLOCK + "norm_2", "blk.{layer}.ffn_norm", decoder.VECTOR),
        *decoder.plain_mlp("up_proj", "down_proj", BLOCK + "ffn."),
    ),
    prefixes=("transformer.",),
    vocab=VocabHints("mpt"),
)

FAMILIES = (BLOOM, MPT)
