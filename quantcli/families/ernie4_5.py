"""ERNIE 4.5, dense: a Llama whose q and k are interleaved already; its first checkpoints have fused projections."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family
from quantcli.vocab import VocabHints

ERNIE4_5 = Family(
    name="ernie4.5",
    gguf_arch="ernie4_5",
    hf_architectures=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    model_types=("ernie4_5",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(131072),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(500000.0),
        "fused": lambda facts: any(name.endswith(".qkv_proj.weight") for name in facts.stored),
        "apart": lambda facts: not facts.fused,
    },
    metadata=decoder.METADATA,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.only("apart", decoder.PROJECTIONS + decoder.GATED_MLP[:2])
    + decoder.split_qkv("layers.{layer}.self_attn.qkv_proj", when="fused")
    + decoder.split_gate_up("layers.{layer}.mlp.up_gate_proj", when="fused")
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP[2:],
    prefixes=("ernie.",),
    vocab=VocabHints("ernie4_5", prefix_from_config=True),
)

FAMILIES = (ERNIE4_5,)
