"""OpenELM: every layer has its own number of heads and its own width of the MLP."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import count, real
from quantcli.vocab import VocabHints

BLOCK = "layers.{layer}."


def numbers(facts: Facts, name: str, least: float = 1) -> list[float]:
    """The list of config.json that has one number for every layer."""
    found = [n for n in decoder.layer_list(facts, name, "numbers") if isinstance(n, (int, float)) and n >= least]
    if len(found) != facts.layers or max(found) > decoder.MOST_HEADS:
        raise bad(name, f"is no list of {facts.layers} numbers")
    return found


def widths(facts: Facts) -> EachLayer:
    """Multiples of the stream's width, rounded to the divisor; up again where more than a tenth was lost."""
    divisor: int = facts.read(count("ffn_dim_divisor", default=256, most=decoder.MOST_WIDTH))
    found = []
    for multiplier in numbers(facts, "ffn_multipliers", 0):
        exact = multiplier * facts.hidden
        width = max(divisor, int(exact + divisor / 2) // divisor * divisor)
        found.append(width + divisor * (width < 0.9 * exact))
    return EachLayer(found)


OPENELM = Family(
    name="openelm",
    gguf_arch="openelm",
    harmless=(
        "ffn_with_glu", "activation_fn_name", "normalize_qk_projections", "normalization_layer_name", "*_multipliers",
        "num_gqa_groups", "rope_max_length", "share_input_output_layers",
    ),
    hf_architectures=("OpenELMForCausalLM",),
    model_types=("openelm",),
    facts={
        "layers": count("num_transformer_layers", most=decoder.MOST_LAYERS),
        "context": count("max_context_length"),
        "hidden": count("model_dim", most=decoder.MOST_WIDTH),
        "vocab": decoder.VOCAB,
        "head_dim": count("head_dim", most=decoder.MOST_WIDTH),
        "heads": lambda facts: EachLayer(map(int, numbers(facts, "num_query_heads"))),
        "kv_heads": lambda facts: EachLayer(map(int, numbers(facts, "num_kv_heads"))),
        "ff": widths,
        "theta": real("rope_freq_constant", default=10000.0, least=1e-6),
        "eps": 1e-6,
    },
    metadata=(
        Entry("block_count", "u32", "layers"),
        Entry("context_length", "u32", "context"),
        Entry("embedding_length", "u32", "hidden"),
        Entry("feed_forward_length", "i32s", "ff"),
        Entry("attention.head_count", "i32s", "heads"),
        Entry("attention.head_count_kv", "i32s", "kv_heads"),
        Entry("rope.freq_base", "f32", "theta"),
        *decoder.RMS,
        Entry("rope.dimension_count", "u32", "head_dim"),
        Entry("attention.key_length", "u32", "head_dim"),
        Entry("attention.value_length", "u32", "head_dim"),
    ),
    tensors=(
        TensorRule("token_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.FINAL_NORM,
        TensorRule(BLOCK + "attn_norm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(
            BLOCK + "attn.qkv_proj", "blk.{layer}.attn_qkv", ("heads*head_dim+2*kv_heads*head_dim", "hidden")
        ),
        TensorRule(BLOCK + "attn.q_norm", "blk.{layer}.attn_q_norm", ("head_dim",)),
        TensorRule(BLOCK + "attn.k_norm", "blk.{layer}.attn_k_norm", ("head_dim",)),
        TensorRule(BLOCK + "attn.out_proj", "blk.{layer}.attn_output", ("hidden", "heads*head_dim")),
        TensorRule(BLOCK + "ffn_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        *decoder.divided(
            BLOCK + "ffn.proj_1",
            ("2*ff", "hidden"),
            ("blk.{layer}.ffn_gate", "0", "ff", None),
            ("blk.{layer}.ffn_up", "ff", "2*ff", None),
        ),
        TensorRule(BLOCK + "ffn.proj_2", "blk.{layer}.ffn_down", ("hidden", "ff")),
    ),
    prefixes=("transformer.",),
    vocab=VocabHints("openelm"),
)  # fmt: skip

FAMILIES = (OPENELM,)
