"""NeoBERT: a Llama that sees both directions, gate and up in one matrix; two thirds of the stated width are used."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.bert import CLASSIFIER, LABEL_FACTS, LABELS
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.dream import NOT_CAUSAL
from quantcli.families.fields import count
from quantcli.families.layernorm import ROPE_TYPE
from quantcli.families.older import NO_KV_HEADS
from quantcli.vocab import VocabHints

TYPES = (Entry("tokenizer.ggml.token_type_count", "u32", "types"),)
LAYER = "transformer_encoder.{layer}."

NEOBERT = Family(
    name="neobert",
    gguf_arch="neo-bert",
    hf_architectures=("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"),
    model_types=("neobert",),
    facts={
        **decoder.FACTS,
        **LABEL_FACTS,
        "ff": lambda facts: int(2 * facts.read(decoder.FEED_FORWARD) / 3),
        "eps": decoder.rms_eps(1e-6),
        "theta": 10000.0,
        "scaling_name": "none",
        "causal": False,
        "types": count("type_vocab_size", default=1, most=2**16),
        "pooling": 2,  # the first token, as the model card says
    },
    metadata=NO_KV_HEADS + decoder.ROPE[-1:] + decoder.RMS + NOT_CAUSAL + ROPE_TYPE + LABELS + TYPES,
    tensors=(
        TensorRule("encoder", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("layer_norm", "enc.output_norm", decoder.VECTOR),
        TensorRule(LAYER + "attention_norm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(LAYER + "qkv", "blk.{layer}.attn_qkv", ("3*q", "hidden")),
        TensorRule(LAYER + "wo", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule(LAYER + "ffn_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule(LAYER + "ffn.w12", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
        TensorRule(LAYER + "ffn.w3", "blk.{layer}.ffn_down", ("hidden", "ff")),
        TensorRule("dense", "cls", ("hidden", "hidden"), optional=True, when="labels"),
        *CLASSIFIER,
    ),
    ignored=("decoder.*",),
    ignored_if=(("dense.*", "unlabelled"),),
    vocab=VocabHints("neo-bert", kind="bert"),
)

FAMILIES = (NEOBERT,)
