"""SmolLM3: every fourth layer has no rotary embedding."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ARCHITECTURES = (Architecture("smollm3", Graph(rope_skip_period=4)),)
