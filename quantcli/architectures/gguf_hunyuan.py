"""Hunyuan, dense: head norms behind the rotation."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

HUNYUAN_DENSE = Architecture("hunyuan-dense", Graph(rope="neox", qk_norm="head", late_qk_norm=True))

ARCHITECTURES = (HUNYUAN_DENSE,)
