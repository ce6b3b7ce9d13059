"""Hunyuan 3: q/k norms per head, sigmoid routing with a bias, one shared expert, dense layers in front."""

from __future__ import annotations

from quantcli.families import decoder, mixture, nextn
from quantcli.families.declaration import Family
from quantcli.families.fields import count, flag, real
from quantcli.vocab import VocabHints

HY_V3 = Family(
    name="hy-v3",
    gguf_arch="hy_v3",
    hf_architectures=("HYV3ForCausalLM",),
    model_types=("hy_v3",),
    facts={
        **decoder.FACTS,
        **nextn.FACTS,
        **mixture.FACTS,
        "nextn_stated": lambda facts: facts.nextn or None,
        "shared": count("num_shared_experts", default=1, least=0, most=decoder.MOST_EXPERTS),
        "weights_norm": flag("route_norm", default=True),
        "weights_scale": real("router_scaling_factor", default=1.0),
        "gating": mixture.SIGMOID,
    },
    metadata=decoder.METADATA
    + mixture.COUNTS
    + mixture.WIDTH
    + mixture.SHARED_WIDTH
    + mixture.WEIGHTS
    + nextn.METADATA,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(router="router.gate", bias=None, shared="shared_mlp")
    + mixture.router_bias("mlp.expert_bias", target="exp_probs_b")
    + nextn.TENSORS,
    spellings={".final_layernorm.": ".shared_head.norm."},
    may_lack="predicts_further",
    vocab=VocabHints("hy_v3"),
)

FAMILIES = (HY_V3,)
