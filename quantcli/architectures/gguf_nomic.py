"""Nomic's BERT: rotary positions, q/k/v fused, a gated MLP."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture
from quantcli.architectures.gguf_bert import BERT_GRAPH

NOMIC_BERT = Architecture(
    "nomic-bert",
    replace(BERT_GRAPH, learned_positions=False, rope="neox", fused_qkv=True, mlp="gated", activation="silu"),
    reads=keys.CLASSIFIER,
    head="none",
)

ARCHITECTURES = (NOMIC_BERT,)
