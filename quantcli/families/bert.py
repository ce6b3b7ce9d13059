"""BERT encoders: learned positions, token types, norms after each sum; the pooler is left out."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

LAYER = "encoder.layer.{layer}."

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
    },
    metadata=(
        *(entry for entry in decoder.SIZES if entry.fact != "kv_heads"),
        *decoder.LAYER_NORM,
        Entry("attention.causal", "boolean", "causal"),
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
    ignored=("pooler.*", "cls.*"),
    prefixes=("bert.",),
    vocab=VocabHints("bert", kind="bert"),
)  # fmt: skip

FAMILIES = (BERT,)
