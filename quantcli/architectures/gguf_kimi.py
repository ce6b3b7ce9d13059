"""Kimi Linear: delta attention and latent attention, neither with positions."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

KIMI_LINEAR = Architecture(
    "kimi-linear",
    Graph(rope="none", latent=True, recurrent="kimi_delta", recurrent_layers="without_key_values"),
    reads=keys.EXPERTS + keys.ROUTING,
    head="required",
)

ARCHITECTURES = (KIMI_LINEAR,)
