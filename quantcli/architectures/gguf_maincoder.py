"""Maincoder: a Llama with a norm for each head."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ARCHITECTURES = (Architecture("maincoder", Graph(qk_norm="head")),)
