"""Laguna: heads that differ between layers, a gate on attention's output, windows with a rotation of their own."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import count, real
from quantcli.vocab import VocabHints

HEADS = "num_attention_heads_per_layer"
FACTOR = real("rope_parameters.sliding_attention.partial_rotary_factor", default=1.0, least=0, most=1)


def heads_of_layers(facts: Facts) -> EachLayer:
    """Query heads of every layer."""
    if not facts.find(HEADS):
        return EachLayer([facts.read(decoder.HEADS)] * facts.layers)
    found = decoder.layer_list(facts, HEADS, "numbers of heads")
    if not all(type(heads) is int and 0 < heads <= decoder.MOST_HEADS for heads in found):
        raise bad(HEADS, "holds something that is no number of heads")
    return EachLayer(found)


def gates_of_layers(facts: Facts) -> EachLayer:
    """Rows of every layer's gate: one for each head, or one for each of their elements."""
    kinds = facts.find("gating_types") or [facts.find("gating")] * facts.layers
    known = {"True": 1, "per-head": 1, "per_head": 1, "per-element": facts.head_dim, "per_element": facts.head_dim}
    if not isinstance(kinds, list) or len(kinds) != facts.layers or not all(str(kind) in known for kind in kinds):
        raise bad("gating", "says neither per-head nor per-element for every layer")
    return EachLayer(heads * known[str(kind)] for heads, kind in zip(facts.heads, kinds, strict=True))


def window_rope_dims(facts: Facts) -> int | None:
    """Rotated dimensions of layers with a window; None in a model without."""
    if not isinstance(facts.find("rope_parameters.sliding_attention"), dict):
        return None
    return int(facts.head_dim * facts.read(FACTOR))


LAGUNA = Family(
    name="laguna",
    harmless=(
        "moe_apply_router_weight_on_input",
        "moe_router_logit_softcapping",
        "rope_parameters.*",
    ),
    gguf_arch="laguna",
    hf_architectures=("LagunaForCausalLM",),
    model_types=("laguna",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "head_dim": count("head_dim", most=decoder.MOST_WIDTH),
        "kv": lambda facts: facts.kv_heads * facts.head_dim,
        "heads": heads_of_layers,
        "kv_heads": count("num_key_value_heads", most=decoder.MOST_HEADS),
        "q": lambda facts: EachLayer(heads * facts.head_dim for heads in facts.heads),
        "gate": gates_of_layers,
        "local_theta": decoder.LOCAL_THETA,
        "window": lambda facts: facts.read(count("sliding_window", default=0, least=0)) or None,
        "shared": 1,
        "shared_ff": count("shared_expert_intermediate_size", most=decoder.MOST_WIDTH),
        "weights_scale": real("moe_routed_scaling_factor"),
        "weights_norm": True,
        "gating": mixture.SIGMOID,
        "rope_dims": decoder.partial_rotary(1.0),
        "window_rope_dims": window_rope_dims,
    },
    metadata=(
        *decoder.SIZES[:4],
        Entry("attention.head_count", "i32s", "heads"),
        *decoder.SIZES[5:],
        *decoder.ROPE,
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        *decoder.LENGTHS,
        *mixture.COUNTS,
        *decoder.VOCAB_SIZE,
        *decoder.WINDOW,
        *mixture.WIDTH,
        *mixture.SHARED_WIDTH,
        *mixture.WEIGHTS,
        *mixture.LEADING,
        *decoder.ROPE_DIMS,
        Entry("rope.dimension_count_swa", "u32", "window_rope_dims"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + (TensorRule("layers.{layer}.self_attn.g_proj", "blk.{layer}.attn_gate", ("gate", "hidden")),)
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(bias="experts.e_score_correction_bias", kinds=mixture.GATE_FIRST, shared="shared_expert"),
    vocab=VocabHints("laguna"),
)

FAMILIES = (LAGUNA,)
