"""Gemma 1, 2 and 3: norms stored as the difference to 1, tied embeddings scaled by sqrt(hidden), tanh GELU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count, real
from quantcli.families.transforms import plus_one
from quantcli.vocab import VocabHints


def shifted(rules: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """The same norms, with 1 added."""
    return tuple(replace(rule, transform=plus_one()) for rule in rules)


FOUR_NORMS = shifted(
    (
        TensorRule("layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.pre_feedforward_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_feedforward_layernorm", "blk.{layer}.post_ffw_norm", decoder.VECTOR),
    )
)
TOP = decoder.EMBEDDINGS + shifted(decoder.FINAL_NORM)
HEAD = tuple(replace(rule, optional=True) for rule in decoder.HEAD)
BODY = TOP + decoder.PROJECTIONS + decoder.OUT_PROJECTION + decoder.GATED_MLP
SOFT_CAPS = (
    Entry("attn_logit_softcapping", "f32", "attention_cap"),
    Entry("final_logit_softcapping", "f32", "final_cap"),
)


GEMMA = Family(
    name="gemma",
    gguf_arch="gemma",
    hf_architectures=("GemmaForCausalLM",),
    model_types=("gemma",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(8192),
        "kv_heads": decoder.key_value_heads(16),
        "head_dim": count("head_dim", default=256, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
    },
    metadata=decoder.SIZES + decoder.RMS + decoder.LENGTHS,
    tensors=BODY + shifted(decoder.PRE_NORMS),
    copies={"lm_head.weight": "embed_tokens.weight"},  # always tied
    vocab=VocabHints("gemma", space_prefix=False, ids={"eot": 107}),
)

GEMMA2 = GEMMA.derive(
    "gemma2",
    gguf_arch="gemma2",
    hf_architectures=("Gemma2ForCausalLM",),
    model_types=("gemma2",),
    facts={
        "kv_heads": decoder.key_value_heads(4),
        "attention_cap": real("attn_logit_softcapping", default=50.0),
        "final_cap": real("final_logit_softcapping", default=30.0),
        "window": count("sliding_window", default=4096),
    },
    metadata=GEMMA.metadata + SOFT_CAPS + decoder.WINDOW,
    tensors=BODY + FOUR_NORMS,
    vocab=replace(GEMMA.vocab, ids={}),
)


def embedding(config: Mapping[str, object]) -> str | None:
    """Embedding models of Gemma 3's class see both directions: another GGUF architecture."""
    return "embeddinggemma" if config.get("use_bidirectional_attention") is True else None


GEMMA3 = GEMMA2.derive(
    "gemma3",
    gguf_arch="gemma3",
    hf_architectures=("Gemma3ForCausalLM", "Gemma3TextModel"),
    model_types=("gemma3_text",),
    facts={
        # released files leave out what equals the config class's default
        "heads": count("num_attention_heads", default=8, most=decoder.MOST_HEADS),
        "vocab": count("vocab_size", default=262208, most=decoder.MOST_WIDTH),
        "context": decoder.context(131072),
        "theta": decoder.theta(1e6),
        "local_theta": real("rope_local_base_freq", "local_rope_theta", "swa_rope_theta", default=10000.0, least=1e-6),
        "attention_cap": real("attn_logit_softcapping", default=None),
        "final_cap": real("final_logit_softcapping", default=None),
    },
    metadata=decoder.SIZES
    + decoder.ROPE
    + (Entry("rope.freq_base_swa", "f32", "local_theta"),)
    + decoder.RMS
    + decoder.LENGTHS
    + SOFT_CAPS[1:]
    + decoder.WINDOW,
    tensors=BODY + HEAD + FOUR_NORMS + shifted(decoder.HEAD_NORMS),
    cut_embeddings=True,
    relative=embedding,
)

# The dense layers behind the pooling (folders 2_Dense, 3_Dense) are left out.
EMBEDDING_GEMMA = GEMMA3.derive(
    "embeddinggemma",
    gguf_arch="gemma-embedding",
    hf_architectures=(),
    model_types=(),
    relative=None,
)

FAMILIES = (GEMMA, GEMMA2, GEMMA3, EMBEDDING_GEMMA)
