"""Hunyuan, dense and with experts: head norms behind the rotation."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

HUNYUAN_DENSE = Architecture("hunyuan-dense", Graph(rope="neox", qk_norm="head", late_qk_norm=True))

HUNYUAN_MOE = replace(HUNYUAN_DENSE, name="hunyuan-moe", reads=keys.EXPERTS + keys.ROUTING)

ARCHITECTURES = (HUNYUAN_DENSE, HUNYUAN_MOE)
