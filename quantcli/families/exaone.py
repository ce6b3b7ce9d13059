"""EXAONE 4: norms after attention and MLP only; hybrid models have windows, and rotate in the layers that have one."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Extra, Family
from quantcli.families.llama import rope_frequency_divisors
from quantcli.vocab import VocabHints

EXAONE4 = Family(
    name="exaone4",
    gguf_arch="exaone4",
    hf_architectures=("Exaone4ForCausalLM",),
    model_types=("exaone4",),
    facts={
        **decoder.FACTS,
        "kv_heads": decoder.key_value_heads(32),
        "eps": decoder.rms_eps(1e-5),
        "rope_dims": lambda facts: facts.head_dim,
        "window": decoder.window(4096),
        "window_pattern": decoder.window_pattern(4),
        "unwindowed": lambda facts: facts.window and facts.layers != 64,
    },
    remarks=(("unwindowed", "llama.cpp uses the windows of EXAONE 4 in models of 64 layers only"),),
    metadata=decoder.METADATA + decoder.VOCAB_SIZE + decoder.WINDOW + decoder.WINDOW_PATTERN,
    tensors=decoder.TOP
    + decoder.PROJECTIONS
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP
    + decoder.POST_NORMS,
    extras=(Extra("rope_freqs.weight", lambda facts: rope_frequency_divisors(facts, default_factor=16.0)),),
    vocab=VocabHints("exaone4"),
)

FAMILIES = (EXAONE4,)
