"""EXAONE 3.0 and 3.5: a Llama in GPT-2's naming, q and k not permuted."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Extra, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import real
from quantcli.families.llama import rope_frequency_divisors
from quantcli.vocab import VocabHints


def rope_dims(facts: Facts) -> int:
    """The part of a head that rotates; its width is read as llama.cpp's converter reads it, never from head_dim."""
    factor: float = facts.read(real("partial_rotary_factor", default=1.0, least=0, most=1))
    return int(factor * (facts.hidden // facts.heads))


BLOCK, ATTENTION = "h.{layer}.", "h.{layer}.attn.attention."

EXAONE3 = Family(
    name="exaone",
    gguf_arch="exaone",
    hf_architectures=("ExaoneForCausalLM",),
    model_types=("exaone",),
    facts={**decoder.FACTS, "eps": decoder.layer_eps(1e-5), "rope_dims": rope_dims},
    # The norms are RMS norms: llama.cpp's converter names their epsilon by the field's name in config.json, its
    # loader wants the other one.
    metadata=decoder.SIZES + decoder.ROPE + decoder.LAYER_NORM + decoder.RMS + decoder.LENGTHS + decoder.ROPE_DIMS,
    tensors=(
        TensorRule("wte", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.HEAD,
        TensorRule("ln_f", "output_norm", decoder.VECTOR),
        TensorRule(BLOCK + "ln_1", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(BLOCK + "ln_2", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule(ATTENTION + "q_proj", "blk.{layer}.attn_q", ("q", "hidden")),
        TensorRule(ATTENTION + "k_proj", "blk.{layer}.attn_k", ("kv", "hidden")),
        TensorRule(ATTENTION + "v_proj", "blk.{layer}.attn_v", ("kv", "hidden")),
        TensorRule(ATTENTION + "out_proj", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule(BLOCK + "mlp.c_fc_0", "blk.{layer}.ffn_gate", ("ff", "hidden")),
        TensorRule(BLOCK + "mlp.c_fc_1", "blk.{layer}.ffn_up", ("ff", "hidden")),
        TensorRule(BLOCK + "mlp.c_proj", "blk.{layer}.ffn_down", ("hidden", "ff")),
    ),
    extras=(Extra("rope_freqs.weight", lambda facts: rope_frequency_divisors(facts, width="head_dim")),),
    prefixes=("transformer.",),
    vocab=VocabHints("exaone"),
)

FAMILIES = (EXAONE3,)
