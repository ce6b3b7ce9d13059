"""Decoders with names of their own: GPT-2, GPT-NeoX, Falcon."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag
from quantcli.families.transforms import joined, regrouped, transposed
from quantcli.vocab import VocabHints

NO_KV_HEADS = tuple(entry for entry in decoder.SIZES if entry.fact != "kv_heads")

# The projections are stored [in, out].
GPT2 = Family(
    name="gpt2",
    gguf_arch="gpt2",
    hf_architectures=("GPT2LMHeadModel",),
    model_types=("gpt2",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(1024),
        "ff": decoder.four_times_hidden,
        "eps": decoder.layer_eps(1e-5),
    },
    metadata=NO_KV_HEADS + decoder.LAYER_NORM,
    tensors=(
        TensorRule("wte", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("wpe", "position_embd", ("context", "hidden"), bias="none"),
        TensorRule("ln_f", "output_norm", decoder.VECTOR, bias="required"),
        TensorRule("h.{layer}.ln_1", "blk.{layer}.attn_norm", decoder.VECTOR, bias="required"),
        TensorRule("h.{layer}.attn.c_attn", "blk.{layer}.attn_qkv", ("hidden", "3*hidden"), transposed(), bias_axis=-1),
        TensorRule(
            "h.{layer}.attn.c_proj", "blk.{layer}.attn_output", ("hidden", "hidden"), transposed(), bias_axis=-1
        ),
        TensorRule("h.{layer}.ln_2", "blk.{layer}.ffn_norm", decoder.VECTOR, bias="required"),
        TensorRule("h.{layer}.mlp.c_fc", "blk.{layer}.ffn_up", ("hidden", "ff"), transposed(), bias_axis=-1),
        TensorRule("h.{layer}.mlp.c_proj", "blk.{layer}.ffn_down", ("ff", "hidden"), transposed(), bias_axis=-1),
        *decoder.HEAD,
    ),
    ignored=("h.*.attn.bias",),
    prefixes=("transformer.",),
    vocab=VocabHints("gpt2"),
)

# q, k, v of head 0, then of head 1 ... become all q, all k, all v.
NEOX_QKV = regrouped(("heads", 3, "head_dim"), order=(1, 0, 2))

GPT_NEOX = GPT2.derive(
    "gpt-neox",
    gguf_arch="gptneox",
    hf_architectures=("GPTNeoXForCausalLM",),
    model_types=("gpt_neox",),
    facts={
        "context": decoder.context(2048),
        "ff": decoder.FEED_FORWARD,
        "rope_dims": decoder.partial_rotary(0.25),
        "parallel": flag("use_parallel_residual", default=True),
    },
    metadata=NO_KV_HEADS + decoder.ROPE_DIMS + decoder.PARALLEL_RESIDUAL + decoder.LAYER_NORM,
    tensors=(
        TensorRule("embed_in", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("embed_out", "output", ("vocab", "hidden"), bias="none", optional="may_tie"),
        TensorRule("final_layer_norm", "output_norm", decoder.VECTOR),
        *decoder.PRE_NORMS,
        TensorRule("layers.{layer}.attention.query_key_value", "blk.{layer}.attn_qkv", ("3*q", "hidden"), NEOX_QKV),
        TensorRule("layers.{layer}.attention.dense", "blk.{layer}.attn_output", ("hidden", "q")),
        *decoder.plain_mlp("dense_h_to_4h", "dense_4h_to_h"),
    ),
    prefixes=("gpt_neox.",),
    vocab=VocabHints("gptneox"),
)


def falcon_kv_heads(facts: Facts) -> int:
    """Only the newer decoder layout uses num_kv_heads; before it, there is one key/value head or one per head."""
    given: int = facts.read(count("num_kv_heads", "n_head_kv", default=1, most=decoder.MOST_HEADS))
    if facts.config.get("new_decoder_architecture"):
        return given
    return 1 if facts.read(flag("multi_query", default=True)) else facts.size("heads")


NORMS = count("num_ln_in_parallel_attn", default=2, most=2)

# Per key/value group: its query heads, then one k, one v.
FALCON_GRID = ("kv_heads", "group+2", "head_dim")
FALCON_QKV = joined(
    regrouped(FALCON_GRID, pick={1: (0, "group", 1)}),
    regrouped(FALCON_GRID, pick={1: ("group", "group+1", 1)}),
    regrouped(FALCON_GRID, pick={1: ("group+1", "group+2", 1)}),
)

FALCON = GPT_NEOX.derive(
    "falcon",
    harmless=("num_ln_in_parallel_attn",),
    gguf_arch="falcon",
    hf_architectures=("FalconForCausalLM", "RWForCausalLM"),
    model_types=("falcon",),
    facts={
        "context": 2048,
        "layout": "jploski",
        "ff": decoder.four_times_hidden,
        "new_layout": flag("new_decoder_architecture", default=False),
        "kv_heads": falcon_kv_heads,
        "two_norms": lambda facts: facts.read(NORMS) == 2 if facts.new_layout else False,
        "one_norm": lambda facts: not facts.two_norms,
        "group": lambda facts: facts.quotient("heads", "kv_heads", ("num_attention_heads", "num_kv_heads")),
    },
    metadata=(Entry("tensor_data_layout", "string", "layout"), *decoder.SIZES, *decoder.LAYER_NORM),
    tensors=(
        TensorRule("word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.HEAD,
        TensorRule("ln_f", "output_norm", decoder.VECTOR),
        TensorRule("h.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR, when="one_norm"),
        TensorRule("h.{layer}.ln_mlp", "blk.{layer}.attn_norm", decoder.VECTOR, when="two_norms"),
        TensorRule("h.{layer}.ln_attn", "blk.{layer}.attn_norm_2", decoder.VECTOR, when="two_norms"),
        TensorRule(
            "h.{layer}.self_attention.query_key_value", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden"), FALCON_QKV
        ),
        TensorRule("h.{layer}.self_attention.dense", "blk.{layer}.attn_output", ("hidden", "q")),
        *decoder.plain_mlp("dense_h_to_4h", "dense_4h_to_h", "h.{layer}.mlp."),
    ),
    prefixes=("transformer.",),
    vocab=VocabHints("falcon"),
)

FAMILIES = (GPT2, GPT_NEOX, FALCON)
