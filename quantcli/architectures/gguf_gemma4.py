"""Gemma 4: full layers with heads of another width, keys shared by later layers, experts beside the MLP."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GEMMA4 = Architecture(
    "gemma4",
    Graph(
        rope="neox",
        qk_norm="head",
        value_norm=True,
        post_norm=True,
        window_period=6,
        window_divisors=False,
        attention_scale="one",
        activation="gelu_tanh",
        embedding_scale="sqrt_hidden",
        layer_inputs=True,
    ),
    reads=keys.SOFT_CAPS + keys.EXPERTS,
)

ARCHITECTURES = (GEMMA4,)
