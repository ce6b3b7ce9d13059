"""MiMo V2: windows with key/value heads of their own and sinks, values narrower than keys, sigmoid routing."""

from __future__ import annotations

from collections.abc import Callable

from quantcli.families import decoder, mixture, nextn
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import count, real
from quantcli.vocab import VocabHints

HEADS_AHEAD = 3  # of every released model; config.json does not count them


def pattern(facts: Facts) -> list[int]:
    """1 for each block that has a window; those that predict further tokens do."""
    found = decoder.layer_list(facts, "hybrid_layer_pattern", "numbers")
    if not all(one in (0, 1) for one in found):
        raise bad("hybrid_layer_pattern", "holds something else than 0 and 1")
    return [int(bool(one)) for one in found] + [1] * facts.nextn


def kv_heads(facts: Facts) -> EachLayer:
    full = facts.read(count("num_key_value_heads", most=decoder.MOST_HEADS))
    windowed = facts.read(count("swa_num_key_value_heads", most=decoder.MOST_HEADS))
    return EachLayer(windowed if one else full for one in facts.pattern)


def is_dense(facts: Facts) -> Callable[[int], bool]:
    """The layers that ``moe_layer_freq`` marks with 0, and those that predict further tokens."""
    marks = decoder.layer_list(facts, "moe_layer_freq", "numbers")
    return lambda layer: layer >= len(marks) or not marks[layer]


MIMO2 = Family(
    name="mimo-v2", harmless=("swa_*", "topk_method",),
    gguf_arch="mimo2",
    hf_architectures=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    model_types=("mimo_v2_flash",),
    facts={
        **decoder.CORE_FACTS,
        **nextn.facts_of(HEADS_AHEAD, HEADS_AHEAD),
        **mixture.FACTS,
        "eps": real("layernorm_epsilon", default=1e-5, least=0, most=1),
        "pattern": pattern,
        "kv_heads": kv_heads,
        "head_dim": count("head_dim", most=decoder.MOST_WIDTH),
        "value": count("v_head_dim", most=decoder.MOST_WIDTH),
        "local_theta": real("swa_rope_theta", default=None, least=1e-6),
        "window": count("sliding_window"),
        "rope_dims": decoder.partial_rotary(1.0),
        "value_scale": real("attention_value_scale", default=None),
        "dense": is_dense,
        "windowed": lambda facts: lambda layer: bool(facts.pattern[layer]),
    },
    metadata=(
        *decoder.SIZES[:-1],
        Entry("attention.head_count_kv", "i32s", "kv_heads"),
        *decoder.ROPE,
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        *mixture.COUNTS,
        Entry("attention.key_length", "u32", "head_dim"),
        Entry("attention.value_length", "u32", "value"),
        *decoder.WINDOW,
        Entry("attention.sliding_window_pattern", "i32s", "pattern"),
        *mixture.WIDTH,
        *decoder.ROPE_DIMS,
        Entry("attention.value_scale", "f32", "value_scale"),
        *nextn.METADATA,
    ),
    tensors=(
        *decoder.TOP,
        *decoder.PRE_NORMS,
        TensorRule("layers.{layer}.self_attn.q_proj", "blk.{layer}.attn_q", ("heads*head_dim", "hidden")),
        TensorRule("layers.{layer}.self_attn.k_proj", "blk.{layer}.attn_k", ("kv_heads*head_dim", "hidden")),
        TensorRule("layers.{layer}.self_attn.v_proj", "blk.{layer}.attn_v", ("kv_heads*value", "hidden")),
        TensorRule("layers.{layer}.self_attn.o_proj", "blk.{layer}.attn_output", ("hidden", "heads*value")),
        TensorRule(
            "layers.{layer}.self_attn.attention_sink_bias", "blk.{layer}.attn_sinks.weight", ("heads",),
            exact=True, optional=True, layers="windowed",
        ),
        *mixture.DENSE_MLP,
        *mixture.routed(kinds=mixture.GATE_FIRST, shared=None),
        *nextn.TENSORS,
        TensorRule("layers.{layer}.final_layernorm", "blk.{layer}.layer_output_norm", decoder.VECTOR, optional=True),
    ),
    spellings={".pre_mlp_layernorm.": ".post_attention_layernorm."},
    may_lack="predicts_further",
    vocab=VocabHints("mimo2"),
)  # fmt: skip

FAMILIES = (MIMO2,)
