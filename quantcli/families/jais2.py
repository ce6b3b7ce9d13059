"""Jais 2: LayerNorm, biases everywhere, squared ReLU without a gate."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.layernorm import NEMOTRON
from quantcli.vocab import VocabHints

JAIS2 = NEMOTRON.derive(
    "jais2",
    gguf_arch="jais2",
    hf_architectures=("Jais2ForCausalLM",),
    model_types=("jais2",),
    facts={
        "context": decoder.context(8192),
        "eps": decoder.layer_eps(1e-5),
        "theta": decoder.theta(500000.0),
        "rope_dims": lambda facts: facts.head_dim,
        "key_length": decoder.given_head_dim,
    },
    metadata=decoder.SIZES + decoder.ROPE + decoder.LAYER_NORM + decoder.LENGTHS + decoder.ROPE_DIMS,
    tensors=tuple(replace(rule, transform=None) for rule in NEMOTRON.tensors),
    vocab=VocabHints("jais2"),
)

FAMILIES = (JAIS2,)
