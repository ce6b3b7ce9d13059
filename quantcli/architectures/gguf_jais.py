"""Jais 2: what llama-quantize knows of it."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture

ARCHITECTURES = (Architecture("jais2", layers_of_70b=68),)
