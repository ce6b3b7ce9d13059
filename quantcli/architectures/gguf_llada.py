"""LLaDA: a Llama that sees both directions."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

LLADA = Architecture("llada", Graph(causal=False))

ARCHITECTURES = (LLADA,)
