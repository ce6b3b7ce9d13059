"""Seed-OSS: a Qwen2 whose second norm has another name."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

SEED_OSS = Architecture("seed_oss", Graph(rope="neox", second_norm="post_attention_norm"))

ARCHITECTURES = (SEED_OSS,)
