"""Step 3.5 and 3.7 (text part): two kinds of layers with heads of their own, gated attention, bounded experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder, mixture, nextn
from quantcli.families.declaration import Entry, Extra, Family, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import REQUIRED, count, flag, real
from quantcli.families.llama import rope_frequency_divisors
from quantcli.families.transforms import plus_one
from quantcli.vocab import VocabHints

EXPERTS = {
    "gate": ("experts", "expert_ff", "hidden"), "up": ("experts", "expert_ff", "hidden"),
    "down": ("experts", "hidden", "expert_ff"),
}  # fmt: skip
OTHER = "attention_other_setting."  # of layers with a window


def by_kind(name: str) -> Callable[[Facts], EachLayer]:
    """Heads of each block: layers with a window may have a number of their own."""
    full, windowed = (count(where + name, default=default, most=decoder.MOST_HEADS)
                      for where, default in (("", REQUIRED), (OTHER, None)))  # fmt: skip
    return lambda facts: EachLayer((one and facts.read(windowed)) or facts.read(full) for one in facts.window_pattern)


def width(heads: str) -> Callable[[Facts], EachLayer]:
    return lambda facts: EachLayer(number * facts.head_dim for number in facts[heads])


def limits(name: str) -> Callable[[Facts], list[float] | None]:
    """What gates and ups of each block are bounded by; 0: nothing."""
    return lambda facts: [float(one or 0) for one in nextn.listed(facts, name, int, float, type(None))] if (
        facts.find(name) is not None) else None  # fmt: skip


def sparse_layers(facts: Facts) -> list[int]:
    """The layers with experts, as ``moe_layers_enum`` lists them ("3,4,5")."""
    found = str(facts.find("moe_layers_enum") or "")
    if not all(part.strip().isdecimal() for part in found.split(",")):
        raise bad("moe_layers_enum", "is no list of layers")
    return sorted(int(part) for part in found.split(","))


def divisors(facts: Facts) -> list[float] | None:
    """Of layers without a window, with ones behind them: windows rotate all of a head, unscaled."""
    found = rope_frequency_divisors(facts, step=float)
    return None if found is None else found + [1.0] * (facts.head_dim // 2 - len(found))


STEP35 = Family(
    name="step3.5",
    harmless=("layer_types", "partial_rotary_factors", "use_head_wise_attn_gate", "use_moe", "use_moe_router_bias",
              "use_qk_norm", "use_rope_layers", "need_fp32_gate", "att_impl_type", "moe_every_n_layer",
              "yarn_only_types", "max_seq_len", "zero_centered", OTHER + "*"),
    gguf_arch="step35",
    hf_architectures=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    model_types=("step3p5",),
    facts={
        **decoder.CORE_FACTS,
        **nextn.FACTS,
        **mixture.FACTS,
        "eps": decoder.rms_eps(1e-5),
        "head_dim": count("head_dim", most=decoder.MOST_WIDTH),
        "local_theta": decoder.LOCAL_THETA,
        "rope_dims": lambda facts: facts.head_dim // 2,
        "window": count("sliding_window"),
        "kinds": lambda facts: nextn.listed(facts, "layer_types", str),
        "window_pattern": lambda facts: [kind == "sliding_attention" for kind in facts.kinds],
        "heads": by_kind("num_attention_heads"),
        "kv_heads": by_kind("num_attention_groups"),
        "q": width("heads"),
        "kv": width("kv_heads"),
        "experts": count("moe_num_experts", most=decoder.MOST_EXPERTS),
        "experts_used": count("moe_top_k", most=decoder.MOST_EXPERTS),
        "shared_ff": count("share_expert_dim", most=decoder.MOST_WIDTH),
        "weights_scale": real("moe_router_scaling_factor", default=None),
        "weights_norm": flag("norm_expert_weight", default=None),
        "moe_layers": sparse_layers,
        "dense_layers": lambda facts: min(facts.moe_layers),
        "sparse": lambda facts: lambda layer: layer in facts.moe_layers,
        "dense": lambda facts: lambda layer: layer not in facts.moe_layers,
        "every": count("moe_every_n_layer", default=1),
        "limits": limits("swiglu_limits"),
        "shared_limits": limits("swiglu_limits_shared"),
    },
    metadata=(
        *decoder.SIZES[:4],
        Entry("attention.head_count", "i32s", "heads"),
        Entry("attention.head_count_kv", "i32s", "kv_heads"),
        *decoder.ROPE,
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        Entry("attention.key_length", "u32", "head_dim"),
        Entry("attention.value_length", "u32", "head_dim"),
        *decoder.WINDOWS,
        *mixture.COUNTS,
        *mixture.WIDTH,
        *mixture.SHARED_WIDTH,
        *mixture.WEIGHTS,
        *mixture.LEADING,
        Entry("moe_every_n_layers", "u32", "every"),
        Entry("swiglu_clamp_exp", "f32s", "limits"),
        Entry("swiglu_clamp_shexp", "f32s", "shared_limits"),
        *nextn.METADATA,
    ),
    tensors=tuple(
        replace(rule, transform=plus_one()) if rule.source.endswith("norm") else rule
        for rule in (
            *decoder.TOP,
            *decoder.PRE_NORMS,
            *decoder.PROJECTIONS,
            TensorRule("layers.{layer}.self_attn.g_proj", "blk.{layer}.attn_gate", ("heads", "hidden")),
            *decoder.HEAD_NORMS,
            *decoder.OUT_PROJECTION,
            *mixture.DENSE_MLP,
            *decoder.router("moe.gate", layers="sparse"),
            *mixture.router_bias("moe.router_bias"),
            *decoder.only_in("sparse", tuple(
                TensorRule(f"layers.{{layer}}.moe.{role}_proj", f"blk.{{layer}}.ffn_{role}_exps", shape)
                for role, shape in EXPERTS.items()
            )),
            *decoder.shared_experts("share_expert", layers="sparse"),
            *nextn.TENSORS,
        )
    ),
    extras=(Extra("rope_freqs.weight", divisors),),
    spellings={".transformer.": ".", ".shared_head.output.": ".shared_head.head."},
    may_lack="predicts_further",
    vocab=VocabHints("step35"),
)  # fmt: skip

FAMILIES = (STEP35,)
