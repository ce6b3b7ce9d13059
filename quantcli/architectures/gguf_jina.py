"""Jina's BERTs, version 2: linear biases, gate and up fused."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures.architecture import Architecture
from quantcli.architectures.gguf_bert import BERT_GRAPH

JINA_BERT_V2 = Architecture(
    "jina-bert-v2",
    replace(BERT_GRAPH, learned_positions=False, alibi=8, mlp="fused", qk_norm="full"),
    head="none",
)

ARCHITECTURES = (JINA_BERT_V2,)
