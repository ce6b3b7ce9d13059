"""OLMo 2 (norms after attention and MLP only) and OLMoE; q/k norms over the whole projection."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family, Graph, TensorRule
from quantcli.vocab import VocabHints

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
    + (
        TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_feedforward_layernorm", "blk.{layer}.post_ffw_norm", decoder.VECTOR),
    ),
    ignored=decoder.IGNORED,
    vocab=VocabHints("olmo2"),
    graph=Graph(rope="neox", pre_norm=False, post_norm=True, qk_norm="full"),
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
    graph={"pre_norm": True, "post_norm": False, "expert_norm": False},
)

FAMILIES = (OLMO2, OLMOE)
