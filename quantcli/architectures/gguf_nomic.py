"""Nomic's BERT: rotary positions, q/k/v fused, a gated MLP."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture
from quantcli.architectures.gguf_bert import BERT_GRAPH

NOMIC_BERT = Architecture(
    "nomic-bert",
    replace(BERT_GRAPH, learned_positions=False, rope="neox", fused_qkv=True, mlp="gated", activation="silu"),
    head="none",
)

# Experts of two matrices in some layers: their tensors say in which.
NOMIC_BERT_MOE = Architecture(
    "nomic-bert-moe",
    replace(
        BERT_GRAPH,
        learned_positions=False,
        rope="neox",
        fused_qkv=True,
        gated_experts=False,
        expert_norm=False,
    ),
    reads=keys.EXPERTS,
    harmless=("moe_every_n_layers",),
    head="none",
)

ARCHITECTURES = (NOMIC_BERT, NOMIC_BERT_MOE)
