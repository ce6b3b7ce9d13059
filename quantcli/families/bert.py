"""BERT encoders: learned positions, token types, norms after each sum; the pooler is left out."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

LAYER = "encoder.layer.{layer}."
POOLINGS = (("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3))


def pooling(facts: Facts) -> int | None:
    """The pooling type that sentence-transformers' files name: 1 mean, 2 first token, 3 last token."""
    modules = facts.file("modules.json")
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, Mapping) and str(module.get("type")).endswith(".Pooling"):
            settings = facts.file(f"{module.get('path')}/config.json")
            if isinstance(settings, Mapping):
                return next((number for name, number in POOLINGS if settings.get(name) is True), None)
    return None


BERT = Family(
    name="bert",
    gguf_arch="bert",
    hf_architectures=("BertModel", "BertForMaskedLM", "BertForSentenceEmbedding"),
    model_types=("bert",),
    facts={
        "layers": decoder.LAYERS,
        "context": decoder.context(512),
        "hidden": decoder.HIDDEN,
        "ff": decoder.FEED_FORWARD,
        "heads": decoder.HEADS,
        "head_dim": lambda facts: facts.quotient("hidden", "heads", ("hidden_size", "num_attention_heads")),
        "vocab": decoder.VOCAB,
        "eps": decoder.layer_eps(1e-12),
        "types": count("type_vocab_size", default=2, most=2**16),
        "causal": False,
        "pooling": pooling,
    },
    metadata=(
        *(entry for entry in decoder.SIZES if entry.fact != "kv_heads"),
        *decoder.LAYER_NORM,
        Entry("attention.causal", "boolean", "causal"),
        Entry("pooling_type", "u32", "pooling"),
        Entry("tokenizer.ggml.token_type_count", "u32", "types"),
    ),
    tensors=(
        TensorRule("embeddings.word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("embeddings.position_embeddings", "position_embd", ("context", "hidden"), bias="none"),
        TensorRule("embeddings.token_type_embeddings", "token_types", ("types", "hidden"), bias="none"),
        TensorRule("embeddings.LayerNorm", "token_embd_norm", decoder.VECTOR, bias="required"),
        TensorRule(LAYER + "attention.self.query", "blk.{layer}.attn_q", ("hidden", "hidden"), bias="required"),
        TensorRule(LAYER + "attention.self.key", "blk.{layer}.attn_k", ("hidden", "hidden"), bias="required"),
        TensorRule(LAYER + "attention.self.value", "blk.{layer}.attn_v", ("hidden", "hidden"), bias="required"),
        TensorRule(LAYER + "attention.output.dense", "blk.{layer}.attn_output", ("hidden", "hidden"), bias="required"),
        TensorRule(LAYER + "attention.output.LayerNorm", "blk.{layer}.attn_output_norm", ("hidden",), bias="required"),
        TensorRule(LAYER + "intermediate.dense", "blk.{layer}.ffn_up", ("ff", "hidden"), bias="required"),
        TensorRule(LAYER + "output.dense", "blk.{layer}.ffn_down", ("hidden", "ff"), bias="required"),
        TensorRule(LAYER + "output.LayerNorm", "blk.{layer}.layer_output_norm", ("hidden",), bias="required"),
    ),
    ignored=("pooler.*", "cls.*", "embeddings.position_ids"),
    prefixes=("bert.",),
    vocab=VocabHints("bert", kind="bert"),
)  # fmt: skip

FAMILIES = (BERT,)
