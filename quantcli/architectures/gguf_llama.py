"""Llama and whatever llama.cpp runs as one: Mistral, Mixtral."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

LLAMA = Architecture("llama", Graph(), reads=keys.EXPERTS, layers_of_70b=80, grouped_70b=True)

LLAMA_EMBED = Architecture("llama-embed", Graph(), head="none")

ARCHITECTURES = (LLAMA, LLAMA_EMBED)
