"""Gemma 3n: four streams side by side, a low-rank shortcut, embeddings for every layer."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GEMMA3N = Architecture(
    "gemma3n",
    Graph(
        rope="neox",
        qk_norm="head",
        value_norm=True,
        post_norm=True,
        window_period=5,
        window_rope_base=10000.0,
        scaled_window_rope=False,
        attention_scale="one",
        activation="gelu_tanh",
        embedding_scale="sqrt_hidden",
        layer_inputs=True,
        streams=True,
    ),
    reads=keys.SOFT_CAPS,
)

ARCHITECTURES = (GEMMA3N,)
