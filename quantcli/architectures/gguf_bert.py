"""BERT, RoBERTa, XLM-RoBERTa: learned positions, norms of the residual sums, both directions, no head."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BERT_GRAPH = Graph(
    norm="layer",
    pre_norm=False,
    sum_norm=True,
    embedding_norm=True,
    final_norm=None,
    rope="none",
    learned_positions=True,
    token_types=True,
    causal=False,
    mlp="plain",
    activation="gelu",
    classifier="tanh",
)
BERT = Architecture("bert", BERT_GRAPH, head="none")

ARCHITECTURES = (BERT,)
