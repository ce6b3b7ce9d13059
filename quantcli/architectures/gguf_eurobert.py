"""EuroBERT: a Llama that sees both directions and has no head."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

EUROBERT = Architecture("eurobert", Graph(rope="neox", causal=False, classifier="tanh"), head="none")

ARCHITECTURES = (EUROBERT,)
