"""BERT encoders: learned positions, token types, norms after each sum; the pooler is left out.

A class with a classifier (a reranker) keeps it, with its labels. RoBERTa's positions begin behind the padding token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count
from quantcli.families.transforms import rows
from quantcli.vocab import VocabHints

LAYER = "encoder.layer.{layer}."
MOST_LABELS = 2**16


def labels(facts: Facts) -> list[str] | None:
    """The labels of a classifier by number; None where there are none, or only the two that transformers makes up."""
    named = facts.config.get("id2label")
    if not isinstance(named, Mapping) or not named:
        return None
    if not all(isinstance(label, str) and number.isdigit() for number, label in named.items()):
        raise bad("id2label", "is no table of labels by number")
    found = [label for _, label in sorted(named.items(), key=lambda item: int(item[0]))]
    return None if len(found) == 2 and found[0] == "LABEL_0" else found


def label_count(facts: Facts) -> int:
    named = facts.config.get("id2label")
    count_of_labels: int = facts.read(count("num_labels", default=2, most=MOST_LABELS))
    return len(named) if isinstance(named, Mapping) and named else count_of_labels


def behind_padding(facts: Facts) -> int:
    """Rows of RoBERTa's table of positions that no token has: up to the padding token's (1 in its config class)."""
    if facts.config.get("pad_token_id", 1) is None:
        return 0
    padding: int = facts.read(count("pad_token_id", default=1, least=0))
    return padding + 1


LABELS = (Entry("classifier.output_labels", "strings", "labels"),)
LABEL_FACTS = {
    "labels": labels,
    "unlabelled": lambda facts: facts.labels is None,
    "label_count": label_count,
}
# With one layer, or with two (RoBERTa's; there the last one has the labels).
CLASSIFIER = (
    TensorRule("classifier", "cls.output", ("label_count", "hidden"), optional=True, when="labels"),
    TensorRule("classifier", "cls", ("label_count", "hidden"), optional=True, when="unlabelled"),
)
ROBERTA_CLASSIFIER = (
    TensorRule("classifier.dense", "cls", ("hidden", "hidden"), optional=True),
    TensorRule("classifier.out_proj", "cls.output", ("label_count", "hidden"), optional=True),
)

BERT = Family(
    name="bert", harmless=("id2label.*",),
    gguf_arch="bert",
    hf_architectures=(
        "BertModel", "BertForMaskedLM", "BertForSentenceEmbedding", "BertForSequenceClassification", "CamembertModel",
    ),
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
        **LABEL_FACTS,
    },
    metadata=(
        *(entry for entry in decoder.SIZES if entry.fact != "kv_heads"),
        *decoder.LAYER_NORM,
        Entry("attention.causal", "boolean", "causal"),
        Entry("tokenizer.ggml.token_type_count", "u32", "types"),
        *LABELS,
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
        *CLASSIFIER,
    ),
    ignored=("pooler.*", "cls.*"),
    prefixes=("bert.",),
    vocab=VocabHints("bert"),
)  # fmt: skip

XLM_ROBERTA = BERT.derive(
    "xlm-roberta",
    hf_architectures=("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    model_types=("xlm-roberta",),
    facts={
        "context": lambda facts: facts.read(count(*decoder.CONTEXT_NAMES, default=512)) - behind_padding(facts),
        "skipped": behind_padding,
    },
    tensors=tuple(
        replace(rule, shape=("context+skipped", "hidden"), transform=rows("skipped", "context+skipped"))
        if rule.target == "position_embd"
        else rule
        for rule in BERT.tensors
        if rule not in CLASSIFIER
    )
    + ROBERTA_CLASSIFIER,
    ignored=(*BERT.ignored, "lm_head.*"),
    prefixes=("roberta.",),
    vocab=VocabHints("bert"),
)

# Byte-level BPE instead of pieces.
ROBERTA = XLM_ROBERTA.derive(
    "roberta",
    hf_architectures=("RobertaModel", "RobertaForSequenceClassification", "RobertaForMaskedLM"),
    model_types=("roberta",),
)

DISTIL = "transformer.layer.{layer}."

DISTILBERT = BERT.derive(
    "distilbert",
    hf_architectures=("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
    model_types=("distilbert",),
    harmless=("sinusoidal_pos_embds",),
    facts={"eps": 1e-12, "types": count("type_vocab_size", default=1, most=2**16)},
    tensors=(
        *(rule for rule in BERT.tensors if rule.source.startswith("embeddings.") and rule.target != "token_types"),
        *(
            TensorRule(DISTIL + source, "blk.{layer}." + target, shape, bias="required")
            for source, target, shape in (
                ("attention.q_lin", "attn_q", ("hidden", "hidden")),
                ("attention.k_lin", "attn_k", ("hidden", "hidden")),
                ("attention.v_lin", "attn_v", ("hidden", "hidden")),
                ("attention.out_lin", "attn_output", ("hidden", "hidden")),
                ("sa_layer_norm", "attn_output_norm", ("hidden",)),
                ("ffn.lin1", "ffn_up", ("ff", "hidden")),
                ("ffn.lin2", "ffn_down", ("hidden", "ff")),
                ("output_layer_norm", "layer_output_norm", ("hidden",)),
            )
        ),
        *CLASSIFIER,
    ),
    ignored=("vocab_*",),
    prefixes=("distilbert.",),
)

FAMILIES = (BERT, XLM_ROBERTA, ROBERTA, DISTILBERT)
