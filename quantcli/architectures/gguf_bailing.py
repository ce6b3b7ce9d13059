"""Bailing 3: what llama-quantize knows of it."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture

ARCHITECTURES = (Architecture("bailingmoe3", recipe_variant="bailingmoe3"),)
