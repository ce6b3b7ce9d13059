"""Hunyuan, dense and A13B: head norms under other names; "dynamic" rope scaling is a larger base for all lengths."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.vocab import VocabHints

ALPHA_SCALINGS = ("dynamic", "xdrope")
LONGEST = 256 * 1024  # what llama.cpp's converter takes "dynamic" to mean, whatever the config says


def alpha_theta(facts: Facts) -> float:
    """The base times alpha^(d / (d - 2)): the NTK-aware scaling by a fixed alpha."""
    base: float = facts.theta
    if facts.kind_of_scaling not in ALPHA_SCALINGS:
        return base
    alpha: float = facts.read(real("rope_scaling.alpha", default=50.0, least=1e-6))
    scaled: float = base * alpha ** (facts.head_dim / (facts.head_dim - 2))
    return scaled


def context(facts: Facts) -> int:
    given: int = facts.read(count(*decoder.CONTEXT_NAMES, default=2048))
    return LONGEST if facts.kind_of_scaling == "dynamic" else given


def when_scaled(value: object, *kinds: str) -> object:
    """A value that is written where alpha scales the base (by one of ``kinds``)."""
    return lambda facts: value if facts.kind_of_scaling in (kinds or ALPHA_SCALINGS) else None


HUNYUAN_DENSE = Family(
    name="hunyuan-dense",
    harmless=("attention_head_dim",),
    gguf_arch="hunyuan-dense",
    hf_architectures=("HunYuanDenseV1ForCausalLM",),
    model_types=("hunyuan_v1_dense",),
    facts={
        **decoder.FACTS,
        "eps": decoder.rms_eps(1e-5),
        "context": context,
        "kind_of_scaling": decoder.scaling,
        "scaling": lambda facts: None if facts.kind_of_scaling in ALPHA_SCALINGS else facts.kind_of_scaling,
        "alpha_theta": alpha_theta,
        "tied": flag("tie_word_embeddings", default=False),
        "scaling_type": when_scaled("none"),
        "scaling_factor": when_scaled(1.0),
        "scaling_context": when_scaled(LONGEST, "dynamic"),
    },
    metadata=tuple(
        replace(entry, fact="alpha_theta") if entry.fact == "theta" else entry for entry in decoder.METADATA
    ),
    tensors=decoder.TENSORS + decoder.HEAD_NORMS,
    spellings={".query_layernorm.": ".q_norm.", ".key_layernorm.": ".k_norm."},
    ignored_if=(("lm_head.weight", "tied"),),
    vocab=VocabHints("hunyuan-dense"),
)

# All layers have experts; their numbers are lists with one entry per layer.
HUNYUAN_MOE = HUNYUAN_DENSE.derive(
    "hunyuan-moe",
    gguf_arch="hunyuan-moe",
    hf_architectures=("HunYuanMoEV1ForCausalLM",),
    model_types=("hunyuan_v1_moe",),
    facts={
        "experts": count("num_experts", "num_local_experts", most=decoder.MOST_EXPERTS),
        "experts_used": mixture.alike("moe_topk", decoder.MOST_EXPERTS),
        "expert_ff": mixture.alike("moe_intermediate_size", decoder.MOST_WIDTH),
        "shared": mixture.alike("num_shared_expert", decoder.MOST_EXPERTS),
        "shared_ff": lambda facts: facts.ff,
    },
    metadata=HUNYUAN_DENSE.metadata + decoder.EXPERT_COUNTS + mixture.WIDTH + mixture.SHARED + mixture.SHARED_WIDTH,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + mixture.routed(router="gate.wg", bias=None, shared="shared_mlp", layers=None),
    vocab=VocabHints("hunyuan-moe", texts={"bos": "<|bos|>"}),
)

FAMILIES = (HUNYUAN_DENSE, HUNYUAN_MOE)
