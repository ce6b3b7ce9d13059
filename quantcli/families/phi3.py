"""Phi-3 and Phi-4: q/k/v and gate/up stay fused; longrope scaling becomes two tables and a factor."""

from __future__ import annotations

import math

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, Extra, Family, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

ORIGINAL_CONTEXT = ("original_max_position_embeddings", "rope_scaling.original_max_position_embeddings")


def attention_factor(facts: Facts) -> float | None:
    """Scale of the attention under longrope (or yarn) from the ratio of the two context lengths."""
    scale = facts.context / facts.original_context
    if facts.scaling == "longrope":
        return math.sqrt(1 + math.log(scale) / math.log(facts.original_context)) if scale > 1 else 1.0
    if facts.scaling == "yarn":
        return 0.1 * math.log(scale) + 1.0 if scale > 1 else 1.0
    return None


def factors(kind: str) -> Extra:
    """The table ``rope_scaling.<kind>_factor`` as a tensor of rope_dims/2 numbers."""

    def values(facts: Facts) -> list[float] | None:
        if facts.scaling != "longrope":
            return None
        name = f"{kind}_factor"
        table = facts.find(f"rope_scaling.{name}")
        if not isinstance(table, list) or len(table) != facts.rope_dims // 2:
            raise bad(f"rope_scaling.{name}", f"must be a list of {facts.rope_dims // 2} numbers")
        if not all(type(x) in (int, float) and 0 < x < 1e30 for x in table):
            raise bad(f"rope_scaling.{name}", "holds something that is no positive number")
        return table

    return Extra(f"rope_factors_{kind}.weight", values)


PHI3 = Family(
    name="phi3",
    gguf_arch="phi3",
    hf_architectures=("Phi3ForCausalLM", "Phi4ForCausalLMV"),
    model_types=("phi3",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(4096),
        "original_context": count(*ORIGINAL_CONTEXT, default="=context", least=2),
        "eps": decoder.rms_eps(1e-5),
        "rope_dims": decoder.partial_rotary(1.0),
        "window": count("sliding_window", default=0, least=0),  # 0 marks Phi-4: no window
        "attention_factor": attention_factor,
    },
    metadata=(
        Entry("context_length", "u32", "context"),
        Entry("rope.scaling.original_context_length", "u32", "original_context"),
        Entry("embedding_length", "u32", "hidden"),
        Entry("feed_forward_length", "u32", "ff"),
        Entry("block_count", "u32", "layers"),
        Entry("attention.head_count", "u32", "heads"),
        Entry("attention.head_count_kv", "u32", "kv_heads"),
        *decoder.RMS,
        *decoder.ROPE_DIMS,
        Entry("rope.freq_base", "f32", "theta"),
        *decoder.WINDOW,
        Entry("rope.scaling.attn_factor", "f32", "attention_factor"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + (TensorRule("layers.{layer}.self_attn.qkv_proj", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden")),)
    + decoder.OUT_PROJECTION
    + decoder.FUSED_MLP,
    extras=(factors("long"), factors("short")),
    vocab=VocabHints("phi3"),
)

# LayerNorm with biases, and a bias for the head; llama.cpp routes by the softmax of the best, not by sparsemixer.
PHI_MOE = PHI3.derive(
    "phi-moe",
    harmless=("long_mscale", "short_mscale"),
    gguf_arch="phimoe",
    hf_architectures=("PhiMoEForCausalLM", "PhimoeForCausalLM"),
    model_types=("phimoe",),
    facts={**decoder.EXPERT_FACTS, "expert_ff": lambda facts: facts.ff, "computed_otherwise": True},
    remarks=(
        ("computed_otherwise", "llama.cpp routes Phi-MoE by softmax, not by sparsemixer, and its norms are RMS norms"),
    ),
    metadata=PHI3.metadata + decoder.EXPERT_COUNTS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.routed("block_sparse_moe", bias=None, kinds=mixture.NUMBERED, shared=None, layers=None),
    spellings={".mlp.": ".block_sparse_moe."},
)

FAMILIES = (PHI3, PHI_MOE)
