"""ModernBERT: the activation function stands in the metadata; layer 0 has no norm before attention."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MODERN_BERT = Architecture(
    "modern-bert",
    Graph(
        norm="layer",
        embedding_norm=True,
        first_norm=False,
        rope="neox",
        fused_qkv=True,
        window_period=3,
        window_last_full=False,
        causal=False,
        symmetric_window=True,
        mlp="fused",
        activation="gelu",
        classifier="gelu",
    ),
    reads=("hidden_activation",),
    harmless=(keys.EPSILON["rms"],),
    head="none",
)

ARCHITECTURES = (MODERN_BERT,)
