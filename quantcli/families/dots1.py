"""dots.llm1: a Qwen3 with a few dense layers in front, then routed and shared experts."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Family
from quantcli.families.fields import flag, real
from quantcli.vocab import VocabHints

DOTS1 = Family(
    name="dots1",
    harmless=("topk_method",),
    gguf_arch="dots1",
    hf_architectures=("Dots1ForCausalLM",),
    model_types=("dots1",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "weights_scale": real("routed_scaling_factor", default=1.0),
        "weights_norm": flag("norm_topk_prob", default=False),
    },
    metadata=decoder.METADATA + mixture.COUNTS + mixture.WIDTH + mixture.LEADING + mixture.SHARED + mixture.WEIGHTS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(),
    vocab=VocabHints("dots1"),
)

FAMILIES = (DOTS1,)
