"""Granite: a Llama with multipliers; the logits are divided by theirs."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

# Granite 4 without a layer that has a state is written so, with sizes of states that it has not.
SIZES = keys.STATES["mamba2"]
GRANITE = Architecture("granite", Graph(logit_scale="divide"), reads=keys.MULTIPLIERS, harmless=SIZES)
GRANITE_MOE = Architecture("granitemoe", GRANITE.graph, reads=keys.MULTIPLIERS + keys.EXPERTS, harmless=SIZES)

GRANITE_SWA = Architecture(
    "granite_swa",
    Graph(logit_scale="divide", sinks=True, window_period=4),
    reads=(*keys.MULTIPLIERS, "attention.rope_pattern"),
)

GRANITE_HYBRID = Architecture(
    "granitehybrid",
    Graph(logit_scale="divide", recurrent="mamba2", recurrent_layers="without_key_values", rope_switch=True),
    reads=keys.MULTIPLIERS + keys.EXPERTS,
)

ARCHITECTURES = (GRANITE, GRANITE_SWA, GRANITE_MOE, GRANITE_HYBRID)
