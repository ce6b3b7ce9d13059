"""Gemma 4: full layers with heads of another width, keys that later layers share, experts beside the MLP."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Extra, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import count, flag, real
from quantcli.families.gemma import GEMMA3, SOFT_CAPS
from quantcli.families.layer_inputs import FACTS, FOUR_NORMS, PER_LAYER, SHARED_KEYS, layer_rule
from quantcli.families.transforms import Transform
from quantcli.vocab import VocabHints

SCALINGS = ("proportional", "default")  # rope_type of the full layers
FACTOR = real("partial_rotary_factor", default=1.0, least=0, most=1)


def of_full_layers(field: str, named: str, most: int) -> object:
    """A number of the layers without window: as ``named``, or as ``per_layer_config`` has it; None for neither."""

    def number(facts: Facts) -> int | None:
        given: int | None = facts.read(count(named, default=None, most=most))
        own = facts.find("per_layer_config")
        for layer, settings in own.items() if given is None and isinstance(own, Mapping) else ():
            full = str(layer).isdigit() and int(layer) < facts.layers and not facts.window_pattern[int(layer)]
            if full and isinstance(settings, Mapping) and settings.get(field) is not None:
                found = settings[field]
                if type(found) is not int or not 0 < found <= most:
                    raise bad("per_layer_config", f"has {field} {found!r}")
                return found
        return given

    return number


def by_window(full: str, windowed: str) -> object:
    """Of each layer: the fact ``windowed`` where it has a window, else ``full``."""
    return lambda facts: EachLayer(facts[windowed] if window else facts[full] for window in facts.window_pattern)


def kv_heads_written(facts: Facts) -> int | list[int]:
    """One number, or an array where full layers have their own."""
    return facts.window_kv_heads if facts.full_kv_heads is None else list(facts.kv_heads)


def kv_heads(facts: Facts) -> EachLayer:
    full = facts.full_kv_heads or facts.window_kv_heads
    return EachLayer(facts.window_kv_heads if window else full for window in facts.window_pattern)


def widths(facts: Facts) -> EachLayer:
    """The MLP's: twice as wide in layers that share keys, where config.json says so."""
    width, wide = facts.read(decoder.FEED_FORWARD), facts.read(flag("use_double_wide_mlp", default=False))
    return EachLayer(width * (1 + (wide and not facts.keeps_keys(layer))) for layer in range(facts.layers))


def widths_written(facts: Facts) -> int | list[int]:
    return list(facts.ff) if facts.read(flag("use_double_wide_mlp", default=False)) else facts.ff[0]


def frequency_divisors(facts: Facts) -> list[float]:
    """The full layers' rotation of the first pairs only ("proportional"): the others turn by next to nothing."""
    pairs, rotated = facts.full_head_dim // 2, int(facts.full_head_dim * facts.read(FACTOR) / 2)
    return [1.0] * rotated + [1e30] * (pairs - rotated)


def exact(source: str, target: str, *shape: str, transform: Transform | None = None, when: str | None) -> TensorRule:
    source, target = f"layers.{{layer}}.{source}", f"blk.{{layer}}.{target}"
    return TensorRule(source, target, shape, transform, exact=True, when=when)


EXPERTS = (
    exact("experts.gate_up_proj", "ffn_gate_up_exps.weight", "experts", "2*expert_ff", "hidden", when="experts"),
    exact("experts.down_proj", "ffn_down_exps.weight", "experts", "hidden", "expert_ff", when="experts"),
    exact("router.scale", "ffn_gate_inp.scale", "hidden", when="experts"),
    exact("router.per_expert_scale", "ffn_down_exps.scale", "experts", when="experts"),
    *decoder.when(decoder.router("router.proj"), "experts"),
    *decoder.when(
        (
            layer_rule("post_feedforward_layernorm_1", "post_ffw_norm_1", "hidden"),
            layer_rule("post_feedforward_layernorm_2", "post_ffw_norm_2", "hidden"),
            layer_rule("pre_feedforward_layernorm_2", "pre_ffw_norm_2", "hidden"),
        ),
        "experts",
    ),
)

GEMMA4 = GEMMA3.derive(
    "gemma4",
    harmless=(
        "hidden_activation",
        "enable_moe_block",
        "per_layer_config.*",
        "rope_scaling",
    ),
    gguf_arch="gemma4",
    hf_architectures=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    model_types=("gemma4_text",),
    facts={
        **FACTS,
        "scaling": None,
        "tokens": None,  # as many as the tokenizer has
        **dict.fromkeys(("q", "kv", "key_length")),  # differ between layers
        "shared_layers": count("num_kv_shared_layers", default=0, least=0, most=decoder.MOST_LAYERS),
        "window_pattern": decoder.window_pattern(6),
        "window_head_dim": count("head_dim", default=256, most=decoder.MOST_WIDTH),
        "full_head_dim": of_full_layers("head_dim", "global_head_dim", decoder.MOST_WIDTH),
        "head_dim": by_window("full_head_dim", "window_head_dim"),
        "window_kv_heads": count("num_key_value_heads", most=decoder.MOST_HEADS),
        "full_kv_heads": of_full_layers("num_key_value_heads", "num_global_key_value_heads", decoder.MOST_HEADS),
        "kv_heads": kv_heads,
        "kv_heads_written": kv_heads_written,
        "ff": widths,
        "ff_written": widths_written,
        "per_layer": count("hidden_size_per_layer_input", default=0, least=0, most=decoder.MOST_WIDTH),
        "keys_are_values": flag("attention_k_eq_v", default=False),
        "has_values": lambda facts: (
            lambda layer: facts.keeps_keys(layer) and (facts.window_pattern[layer] or not facts.keys_are_values)
        ),
        "experts": count("num_local_experts", "num_experts", default=None, most=decoder.MOST_EXPERTS),
        "experts_used": count("top_k_experts", "num_experts_per_tok", default=None, most=decoder.MOST_EXPERTS),
        "expert_ff": count("expert_intermediate_size", "moe_intermediate_size", default=None, most=decoder.MOST_WIDTH),
    },
    metadata=(
        *decoder.SIZES[:3],
        Entry("feed_forward_length", "counts", "ff_written"),
        decoder.SIZES[4],
        Entry("attention.head_count_kv", "counts", "kv_heads_written"),
        *decoder.ROPE[-1:],
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        *decoder.EXPERT_COUNTS,
        Entry("attention.key_length", "u32", "full_head_dim"),
        Entry("attention.value_length", "u32", "full_head_dim"),
        Entry("attention.key_length_swa", "u32", "window_head_dim"),
        Entry("attention.value_length_swa", "u32", "window_head_dim"),
        *SOFT_CAPS[1:],
        *decoder.WINDOWS,
        Entry("attention.shared_kv_layers", "u32", "shared_layers"),
        Entry("embedding_length_per_layer_input", "u32", "per_layer"),
        Entry("expert_feed_forward_length", "u32", "expert_ff"),
        Entry("rope.dimension_count", "u32", "full_head_dim"),
        Entry("rope.dimension_count_swa", "u32", "window_head_dim"),
    ),
    tensors=(
        *decoder.EMBEDDINGS,
        *decoder.FINAL_NORM,
        *decoder.when(PER_LAYER, "per_layer"),
        *FOUR_NORMS,
        *SHARED_KEYS,
        layer_rule("self_attn.v_proj", "attn_v", "kv_heads*head_dim", "hidden", layers="has_values"),
        *decoder.GATED_MLP,
        *EXPERTS,
        exact("layer_scalar", "layer_output_scale.weight", "1", when=None),
    ),
    extras=(Extra("rope_freqs.weight", frequency_divisors),),
    vocab=VocabHints("gemma4", kind="gemma4"),
)


def suppressed(facts: Facts) -> list[int] | None:
    """Tokens that are never to be chosen, as generation_config.json says."""
    settings = facts.file("generation_config.json")
    found = settings.get("suppress_tokens") if isinstance(settings, Mapping) else None
    return found if isinstance(found, list) and all(type(token) is int for token in found) else None


GEMMA4_UNIFIED = GEMMA4.derive(
    "gemma4-unified",
    hf_architectures=("Gemma4UnifiedForConditionalGeneration",),
    model_types=("gemma4_unified", "gemma4_unified_text"),
    facts={"suppressed": suppressed},
    metadata=(*GEMMA4.metadata, Entry("tokenizer.ggml.suppress_tokens", "i32s", "suppressed")),
)

FAMILIES = (GEMMA4, GEMMA4_UNIFIED)
