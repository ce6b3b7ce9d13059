"""ModernBERT: norms before, windows to both sides but in every third layer, gate and up in one matrix."""

from __future__ import annotations

from quantcli.families import decoder, pooling
from quantcli.families.bert import LABEL_FACTS, LABELS
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.dream import NOT_CAUSAL
from quantcli.families.fields import count, real, text
from quantcli.families.layernorm import ROPE_TYPE
from quantcli.vocab import VocabHints

LAYER = "layers.{layer}."

MODERN_BERT = Family(
    name="modern-bert",
    gguf_arch="modern-bert",
    hf_architectures=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    model_types=("modernbert",),
    harmless=("classifier_*", "decoder_bias", "*_affine", "norm_bias", "layer_types"),
    facts={
        **decoder.FACTS,
        **LABEL_FACTS,
        "context": decoder.context(8192),
        "key_length": decoder.given_head_dim,
        "eps": decoder.layer_eps(1e-5),
        "rms_eps": real("rms_norm_eps", "norm_eps", default=None, least=0, most=1),
        "theta": decoder.theta(160000.0),
        "window_theta": real("local_rope_theta", "rope_local_base_freq", default=10000.0, least=1e-6),
        "causal": False,
        "classifier_pooling": pooling.of_classifier,
        "window": count("local_attention", default=128),
        "window_period": count("global_attn_every_n_layers", default=None),
        "scaling_name": "none",
        "normed": lambda facts: lambda layer: layer > 0,
        "activation": text("hidden_activation", default=None),
    },
    metadata=(
        *decoder.SIZES[:5],
        decoder.ROPE[-1],
        Entry("rope.freq_base_swa", "f32", "window_theta"),
        Entry("attention.layer_norm_rms_epsilon", "f32", "rms_eps"),
        *decoder.LAYER_NORM,
        *NOT_CAUSAL,
        *pooling.CLASSIFIER,
        *decoder.WINDOW,
        Entry("attention.sliding_window_pattern", "u32", "window_period"),
        *ROPE_TYPE,
        *decoder.VOCAB_SIZE,
        Entry("hidden_activation", "string", "activation"),
        *LABELS,
    ),
    tensors=(
        TensorRule("embeddings.tok_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("embeddings.norm", "token_embd_norm", decoder.VECTOR),
        TensorRule("final_norm", "output_norm", decoder.VECTOR),
        TensorRule(LAYER + "attn_norm", "blk.{layer}.attn_norm", decoder.VECTOR, layers="normed"),
        TensorRule(LAYER + "attn.Wqkv", "blk.{layer}.attn_qkv", ("3*q", "hidden")),
        TensorRule(LAYER + "attn.Wo", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule(LAYER + "mlp_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule(LAYER + "mlp.Wi", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
        TensorRule(LAYER + "mlp.Wo", "blk.{layer}.ffn_down", ("hidden", "ff")),
        TensorRule("head.dense", "cls", ("hidden", "hidden"), optional=True, when="labels"),
        TensorRule("head.norm", "cls.norm", decoder.VECTOR, optional=True, when="labels"),
        TensorRule("classifier", "cls.output", ("label_count", "hidden"), optional=True, when="labels"),
    ),
    ignored=("decoder.*",),
    ignored_if=(("head.*", "unlabelled"), ("classifier.*", "unlabelled")),
    vocab=VocabHints("modern-bert"),
)

FAMILIES = (MODERN_BERT,)
