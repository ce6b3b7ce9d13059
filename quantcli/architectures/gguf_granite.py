"""Granite: a Llama with multipliers; the logits are divided by theirs."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GRANITE = Architecture("granite", Graph(logit_scale="divide"), reads=keys.MULTIPLIERS)
GRANITE_MOE = Architecture("granitemoe", GRANITE.graph, reads=keys.MULTIPLIERS + keys.EXPERTS)

ARCHITECTURES = (GRANITE, GRANITE_MOE)
