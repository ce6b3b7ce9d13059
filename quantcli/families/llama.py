"""Llama 1 to 3.x, Mistral and Mixtral: all of GGUF architecture "llama"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Extra, Family
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.transforms import single
from quantcli.vocab import VocabHints


def rope_frequency_divisors(
    facts: Facts, default_factor: float = 8.0, width: str = "rope_dims", step: Callable[[float], float] = single
) -> list[float] | None:
    """Llama 3.1's scaling as a table of divisors, half as many as the fact ``width`` says: long wavelengths by
    ``factor``, a ramp between. ``step`` is how a step behind the frequency is rounded: to float32, where llama.cpp's
    converter computes it with tensors.

    Formula: the rope scaling of type "llama3" in transformers' modeling_rope_utils.
    """
    if facts.scaling != "llama3":
        return None
    factor: float = facts.read(real("rope_scaling.factor", default=default_factor, least=1e-6))
    low = facts.read(real("rope_scaling.low_freq_factor", default=1.0, least=1e-6))
    high = facts.read(real("rope_scaling.high_freq_factor", default=4.0, least=1e-6))
    original = facts.read(count("rope_scaling.original_max_position_embeddings", default=8192))
    if low > high:
        raise bad("rope_scaling.high_freq_factor", "must not be below low_freq_factor")

    def divisor(exponent: float) -> float:
        frequency = single(1 / single(facts.theta ** single(exponent)))
        wavelength = step(2 * math.pi / frequency)
        if wavelength < original / high:
            return 1.0
        if low == high or wavelength > original / low:
            return factor
        smooth = step(step(step(original / wavelength) - low) / (high - low))
        return 1 / step(step(step(1 - smooth) / factor) + smooth)

    dims: int = facts[width]
    return [divisor(i / dims) for i in range(0, dims, 2)]


def hints_by_size(facts: Facts, hints: VocabHints) -> VocabHints:
    """CodeLlama (32,016 tokens) has infill ids; SmolLM (49,152) adds no bos. Known by their vocabulary sizes only."""
    if facts.vocab == 32016:
        return replace(hints, ids={"prefix": 32007, "suffix": 32008, "middle": 32009, "eot": 32010})
    return replace(hints, add_bos=False) if facts.vocab == 49152 else hints


def of_text_model(config: Mapping[str, object]) -> str | None:
    """Wrappers around any text model: what stands in ``text_config`` decides."""
    kind = config.get("model_type") if "text_config" in config else None
    return str(kind) if kind in ("mistral", "mixtral", "qwen2", "qwen3") else None


LLAMA = Family(
    name="llama",
    gguf_arch="llama",
    hf_architectures=(
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "IQuestCoderForCausalLM",
        "VLlama3ForCausalLM",
        "LlavaForConditionalGeneration",
        "VoxtralForConditionalGeneration",
    ),
    model_types=("llama",),
    relative=of_text_model,
    facts={
        **decoder.FACTS,
        "heads": count("num_attention_heads", "n_head", "n_heads", default=32, most=decoder.MOST_HEADS),
        "key_length": lambda facts: facts.head_dim,
        "rope_dims": lambda facts: facts.head_dim,
    },
    metadata=decoder.METADATA + decoder.VOCAB_SIZE + decoder.ROPE_DIMS,
    tensors=decoder.PERMUTED_TENSORS,
    extras=(Extra("rope_freqs.weight", rope_frequency_divisors),),
    vocab=VocabHints("llama", prefix_from_config=True),
    vocab_for=hints_by_size,
)

# The sliding window of early Mistral models is not written: llama.cpp's "llama" has none.
MISTRAL = LLAMA.derive(
    "mistral",
    hf_architectures=("MistralForCausalLM",),
    model_types=("mistral",),
    facts={
        "context": decoder.context(4096 * 32),
        "kv_heads": decoder.key_value_heads(8),
        "key_length": decoder.given_head_dim,  # its config class fills none in
    },
)

MIXTRAL = LLAMA.derive(
    "mixtral",
    hf_architectures=("MixtralForCausalLM",),
    model_types=("mixtral",),
    facts={
        "context": decoder.context(4096 * 32),
        "kv_heads": decoder.key_value_heads(8),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(1e6),
        "key_length": decoder.given_head_dim,
        "experts": count("num_local_experts", default=8, most=decoder.MOST_EXPERTS),
        "experts_used": count("num_experts_per_tok", default=2, most=decoder.MOST_EXPERTS),
        "expert_ff": lambda facts: facts.ff,
    },
    metadata=decoder.METADATA + decoder.EXPERT_COUNTS + decoder.VOCAB_SIZE + decoder.ROPE_DIMS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PERMUTED_PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.router("block_sparse_moe.gate")
    + decoder.experts("block_sparse_moe.experts", ("w1", "gate"), ("w2", "down"), ("w3", "up")),
    spellings={".mlp.experts.": ".block_sparse_moe.experts.", ".mlp.gate.": ".block_sparse_moe.gate."},
)

# The scaling of its rotation begins beyond the trained context: it is not written.
INTERNLM3 = LLAMA.derive(
    "internlm3",
    hf_architectures=("InternLM3ForCausalLM",),
    model_types=("internlm3",),
    facts={"key_length": decoder.given_head_dim},
    vocab_for=None,
)

# Trained to see both directions; llama.cpp does so where the metadata says it.
LLAMA_BIDIRECTIONAL = LLAMA.derive(
    "llama-bidirectional",
    gguf_arch="llama-embed",
    hf_architectures=("LlamaBidirectionalModel",),
    model_types=("llama_bidirec",),
    facts={
        "key_length": decoder.given_head_dim,
        "pooling": None,
        "causal": lambda facts: facts.config.get("is_causal") is not False,
    },
    harmless=("pooling",),
    remarks=(("causal", "llama.cpp runs llama-embed causally where config.json does not say is_causal: false"),),
    vocab_for=None,
)

# Makes images too: what it has for them is left out.
JANUS = LLAMA.derive(
    "janus",
    hf_architectures=("JanusForConditionalGeneration",),
    model_types=("janus",),
    ignored=("aligner.*", "vqmodel.*", "generation_*"),
)

# Beside the language model lies a norm of the vision tower.
SARASHINA2_VISION = LLAMA.derive(
    "sarashina2-vision",
    hf_architectures=("Sarashina2VisionForCausalLM",),
    model_types=("sarashina2_vision",),
    facts={"theta": decoder.stated_theta, "key_length": decoder.given_head_dim},
    spellings={"llm.model.": "", "llm.": "", "norm.": "vision_norm."},
    ignored=("vision_norm.*",),
)

FAMILIES = (LLAMA, JANUS, SARASHINA2_VISION, MISTRAL, MIXTRAL, LLAMA_BIDIRECTIONAL, INTERNLM3)
