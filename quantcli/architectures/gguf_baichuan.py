"""Baichuan: the metadata does not say it, only the depth does: 32 layers rotate, 40 have linear biases."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BAICHUAN = Architecture("baichuan", Graph(rope_layers=32, alibi=8, alibi_layers=40), head="required")

ARCHITECTURES = (BAICHUAN,)
