"""SmallThinker: the router reads the layer's input before attention, ReLU experts, windows with rotation."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag
from quantcli.vocab import VocabHints


def window(facts: Facts) -> int | None:
    """The window, where any layer has one."""
    layout = facts.find("sliding_window_layout")
    used = isinstance(layout, list) and any(layout)
    return facts.read(count("sliding_window_size", default=None)) if used else None


def gating(facts: Facts) -> int:
    soft = facts.read(flag("moe_primary_router_apply_softmax", default=False))
    return mixture.GATING["softmax"] if soft else mixture.SIGMOID


SMALLTHINKER = Family(
    name="smallthinker",
    harmless=(
        "hidden_act",
        "rope_layout",
    ),
    gguf_arch="smallthinker",
    hf_architectures=("SmallThinkerForCausalLM",),
    model_types=("smallthinker",),
    facts={
        **decoder.FACTS,
        "experts": count("moe_num_primary_experts", most=decoder.MOST_EXPERTS),
        "experts_used": count("moe_num_active_primary_experts", most=decoder.MOST_EXPERTS),
        "ff": count("moe_ffn_hidden_size", most=decoder.MOST_WIDTH),
        "expert_ff": lambda facts: facts.ff,
        "gating": gating,
        "window": window,
    },
    metadata=decoder.METADATA + decoder.EXPERT_COUNTS + mixture.WIDTH + mixture.GATING_ENTRY + decoder.WINDOW,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.router("block_sparse_moe.primary_router")
    + decoder.experts("block_sparse_moe.experts", ("down", "down"), ("gate", "gate"), ("up", "up")),
    vocab=VocabHints("smallthinker"),
)

FAMILIES = (SMALLTHINKER,)
