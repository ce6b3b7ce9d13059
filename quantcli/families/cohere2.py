"""Command R7B: Command-R without head norms; three of four layers have a window, and rotate."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, real
from quantcli.families.layernorm import COMMAND_R


def rope_dims(facts: Facts) -> int:
    """The part of a head that rotates; its width is read as llama.cpp's converter reads it, never from head_dim."""
    return int(facts.read(real("rotary_pct", default=1.0, least=0, most=1)) * (facts.hidden // facts.heads))


COHERE2 = COMMAND_R.derive(
    "cohere2",
    harmless=("use_embedding_sharing", "use_gated_activation"),
    gguf_arch="cohere2",
    hf_architectures=("Cohere2ForCausalLM",),
    model_types=("cohere2",),
    facts={
        "context": decoder.context(8192),
        "kv_heads": decoder.key_value_heads("=heads"),
        "window": count("sliding_window", default=4096),
        "rope_dims": rope_dims,
        "key_length": lambda facts: facts.head_dim,
    },
    metadata=COMMAND_R.metadata + decoder.LENGTHS + decoder.WINDOW + decoder.VOCAB_SIZE + decoder.ROPE_DIMS,
    tensors=tuple(
        TensorRule(rule.source, rule.target, rule.shape, bias="none")
        for rule in COMMAND_R.tensors
        if "_norm.weight" not in rule.target and "self_attn.q_norm" not in rule.source and "k_norm" not in rule.source
    ),
    zeros=("*.bias",),
)

FAMILIES = (COHERE2,)
