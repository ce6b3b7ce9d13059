"""OLMo, OLMo 2 and 3 (norms after attention and MLP only) and OLMoE; q/k norms over the whole projection."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family
from quantcli.families.fields import real
from quantcli.vocab import VocabHints

# No norm has weights; queries, keys and values may be cut off.
OLMO = Family(
    name="olmo",
    gguf_arch="olmo",
    hf_architectures=("OlmoForCausalLM", "OLMoForCausalLM"),
    model_types=("olmo",),
    facts={**decoder.FACTS, "eps": 1e-5, "clamp": real("clip_qkv", default=None, least=0)},
    metadata=decoder.SIZES
    + decoder.ROPE
    + decoder.LAYER_NORM
    + decoder.LENGTHS
    + (Entry("attention.clamp_kqv", "f32", "clamp"),),
    tensors=decoder.EMBEDDINGS
    + decoder.HEAD
    + decoder.PERMUTED_PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP,
    vocab=VocabHints("olmo"),
)

OLMO2 = Family(
    name="olmo2",
    gguf_arch="olmo2",
    hf_architectures=("Olmo2ForCausalLM",),
    model_types=("olmo2",),
    facts={**decoder.FACTS, "eps": decoder.rms_eps(1e-5)},
    metadata=decoder.METADATA,
    tensors=decoder.TOP
    + decoder.PROJECTIONS
    + decoder.FULL_NORMS
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP
    + decoder.POST_NORMS,
    vocab=VocabHints("olmo2"),
)

OLMO3 = OLMO2.derive(
    "olmo3",
    hf_architectures=("Olmo3ForCausalLM",),
    model_types=("olmo3",),
    facts={"window": decoder.window(4096), "window_pattern": decoder.window_pattern(4)},
    metadata=decoder.METADATA + decoder.WINDOW + decoder.WINDOW_PATTERN,
)

OLMOE = OLMO2.derive(
    "olmoe",
    gguf_arch="olmoe",
    hf_architectures=("OlmoeForCausalLM",),
    model_types=("olmoe",),
    facts={"context": decoder.context(4096), **decoder.EXPERT_FACTS, "expert_ff": lambda facts: facts.ff},
    metadata=decoder.METADATA + decoder.EXPERT_COUNTS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.FULL_NORMS
    + decoder.OUT_PROJECTION
    + decoder.router("mlp.gate")
    + decoder.experts("mlp.experts", *decoder.EXPERT_KINDS),
)

FAMILIES = (OLMO, OLMO2, OLMO3, OLMOE)
