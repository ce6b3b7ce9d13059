"""Hunyuan 3: a Qwen3 with experts whose choice is biased."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

HY_V3 = Architecture("hy_v3", Graph(rope="neox", qk_norm="head", expert_norm=False), reads=keys.EXPERTS + keys.ROUTING)

ARCHITECTURES = (HY_V3,)
