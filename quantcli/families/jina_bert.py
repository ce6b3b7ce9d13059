"""Jina's BERTs, version 2: linear biases instead of positions, a gated MLP with gate and up in one matrix."""

from __future__ import annotations

from quantcli.families.bert import BERT, LAYER
from quantcli.families.declaration import TensorRule
from quantcli.vocab import VocabHints

VECTOR = ("hidden",)
LEFT_OUT = ("position_embd", "blk.{layer}.ffn", "blk.{layer}.layer_output_norm")

# Those of code have norms of the whole query and key, and one more behind attention.
JINA_BERT = BERT.derive(
    "jina-bert-v2",
    harmless=("emb_pooler", "feed_forward_type"),
    gguf_arch="jina-bert-v2",
    hf_architectures=("JinaBertModel", "JinaBertForMaskedLM"),
    model_types=(),
    tensors=(
        *(rule for rule in BERT.tensors if not rule.target.startswith(LEFT_OUT)),
        TensorRule(LAYER + "attention.self.layer_norm_q", "blk.{layer}.attn_q_norm", VECTOR, optional=True),
        TensorRule(LAYER + "attention.self.layer_norm_k", "blk.{layer}.attn_k_norm", VECTOR, optional=True),
        TensorRule(LAYER + "layer_norm_1", "blk.{layer}.attn_norm_2", VECTOR, optional=True),
        TensorRule(LAYER + "mlp.gated_layers", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
        TensorRule(LAYER + "mlp.wo", "blk.{layer}.ffn_down", ("hidden", "ff")),
        TensorRule(LAYER + "mlp.layernorm", "blk.{layer}.layer_output_norm", VECTOR, bias="required"),
    ),
    spellings={
        ".mlp.up_gated_layer.": ".mlp.gated_layers.",
        ".mlp.down_layer.": ".mlp.wo.",
        ".layer_norm_2.": ".mlp.layernorm.",
    },
    vocab=VocabHints("jina-bert-v2", pre=("jina-v2-en",)),
)

FAMILIES = (JINA_BERT,)
