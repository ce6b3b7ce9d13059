"""Gemma 1, 2 and 3: embeddings scaled by sqrt(hidden), tanh GELU; since 2 four norms a layer and windows."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GEMMA_GRAPH = Graph(rope="neox", activation="gelu_tanh", embedding_scale="sqrt_hidden")
# The 27B models scale the query by their hidden size; the metadata does not say so, only their depth does.
GEMMA2_GRAPH = replace(GEMMA_GRAPH, post_norm=True, window_period=2, wide_query_layers=46)
GEMMA3_GRAPH = replace(
    GEMMA2_GRAPH,
    qk_norm="head",
    window_period=6,
    window_rope_base=10000.0,
    scaled_window_rope=False,
    wide_query_layers=62,
)

GEMMA = Architecture("gemma", GEMMA_GRAPH, head="none")
GEMMA2 = Architecture("gemma2", GEMMA2_GRAPH, reads=keys.SOFT_CAPS, head="none")
GEMMA3 = Architecture("gemma3", GEMMA3_GRAPH, reads=keys.SOFT_CAPS)
GEMMA_EMBEDDING = Architecture(
    "gemma-embedding", replace(GEMMA3_GRAPH, causal=False, symmetric_window=True, wide_query_layers=0)
)

ARCHITECTURES = (GEMMA, GEMMA2, GEMMA3, GEMMA_EMBEDDING)
