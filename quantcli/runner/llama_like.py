"""Which models are plain enough for code that knows one kind of layer: gradients (calibration, quantcli.torch).

Such a layer is an RMS norm, attention with rotary positions and grouped heads, another norm, a gated MLP, each added to
the residual stream. The runner itself needs none of this: it knows every family.
"""

from __future__ import annotations

from dataclasses import fields

from quantcli.architectures import Graph
from quantcli.runner.settings import NetworkSettings

# What a graph may differ in from Llama's, and settings that metadata can change, with the values that change nothing.
_MAY_DIFFER = ("rope", "qk_norm")
_PLAIN: dict[str, object] = {
    "state": None, "window": 0, "attention_cap": 0.0, "alibi": 0.0, "clamp": 0.0, "final_cap": 0.0, "routing": None,
    "parallel": False, "latent": None, "indexer": None, "value_scale": 1.0, "layer_width": 0, "temperature": 0.0,
    "causal": True, "sides": None,
}  # fmt: skip


def differences(settings: NetworkSettings) -> list[str]:
    """What a model has beyond that, by the names of the settings; [] for a Llama-like one."""
    usual = Graph()
    found = [
        field.name
        for field in fields(Graph)
        if field.name not in _MAY_DIFFER and getattr(settings.graph, field.name) != getattr(usual, field.name)
    ]
    found += [name for name, plain in _PLAIN.items() if getattr(settings, name) != plain]
    return found + ["qk_norm"] * (settings.graph.qk_norm not in (None, "head"))
