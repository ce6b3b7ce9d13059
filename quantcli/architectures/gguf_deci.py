"""Deci: what llama-quantize knows of it."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture

ARCHITECTURES = (Architecture("deci", layers_of_70b=80),)
