"""Grok 1 and 2: norms before and after, capped scores, a dense MLP beside the experts (2), multipliers."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.vocab import VocabHints

OUTPUT_SCALE = real("attn_output_multiplier", default=None)
LAYER_EPS = real("layer_norm_eps", default=None, least=0, most=1)


def output_scale(facts: Facts) -> float:
    """What the scores are multiplied by."""
    given: float | None = facts.read(OUTPUT_SCALE)
    return facts.head_dim**-0.5 if given is None else given


def layer_eps(facts: Facts) -> float | None:
    """An entry that nobody reads: Grok 2 calls itself "git", whose config class has this default."""
    given: float | None = facts.read(LAYER_EPS)
    return 1e-12 if given is None and facts.find("model_type") == "git" else given


def norm(source: str, target: str) -> TensorRule:
    return TensorRule(f"layers.{{layer}}.{source}", f"blk.{{layer}}.{target}", decoder.VECTOR)


GROK = Family(
    name="grok",
    harmless=("hidden_act",),
    gguf_arch="grok",
    hf_architectures=("Grok1ForCausalLM", "GrokForCausalLM"),
    facts={
        **decoder.FACTS,
        **decoder.EXPERT_FACTS,
        "stated_expert_ff": count("moe_intermediate_size", default=None, most=decoder.MOST_WIDTH),
        "expert_ff": lambda facts: facts.stated_expert_ff or facts.ff,
        "beside": flag("residual_moe", default=False),
        "attention_cap": real("attn_logit_softcapping", default=30.0),
        "router_cap": real("router_logit_softcapping", default=30.0),
        "final_cap": lambda facts: facts.read(real("final_logit_softcapping", default=0)) or None,
        "temperature_length": lambda facts: facts.read(count("attn_temperature_len", default=0, least=0)) or None,
        "output_scale": output_scale,
        "embedding_scale": real("embedding_multiplier_scale"),
        "logit_scale": real("output_multiplier_scale"),
        "layer_eps": layer_eps,
    },
    metadata=(
        *decoder.METADATA,
        Entry("attention.layer_norm_epsilon", "f32", "layer_eps"),
        *decoder.EXPERT_COUNTS,
        Entry("attn_logit_softcapping", "f32", "attention_cap"),
        Entry("router_logit_softcapping", "f32", "router_cap"),
        Entry("final_logit_softcapping", "f32", "final_cap"),
        Entry("expert_feed_forward_length", "u32", "stated_expert_ff"),
        Entry("attention.temperature_length", "u32", "temperature_length"),
        Entry("attention.output_scale", "f32", "output_scale"),
        Entry("embedding_scale", "f32", "embedding_scale"),
        Entry("logit_scale", "f32", "logit_scale"),
    ),
    tensors=(
        *decoder.TOP,
        norm("pre_attn_norm", "attn_norm"),
        norm("post_attn_norm", "attn_output_norm"),
        norm("pre_moe_norm", "ffn_norm"),
        norm("post_moe_norm", "post_ffw_norm"),
        *decoder.PROJECTIONS,
        *decoder.OUT_PROJECTION,
        *decoder.when(decoder.GATED_MLP, "beside"),
        *mixture.routed("block_sparse_moe", bias=None, kinds=mixture.NUMBERED, shared=None, layers=None),
    ),
    vocab=VocabHints("grok"),
)

FAMILIES = (GROK,)
