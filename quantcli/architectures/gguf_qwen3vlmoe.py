"""Text part of Qwen3-VL with experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

QWEN3_VL_MOE = Architecture(
    "qwen3vlmoe",
    Graph(rope="neox", qk_norm="head"),
    reads=keys.EXPERTS,
    harmless=("rope.dimension_sections", "n_deepstack_layers"),
)

ARCHITECTURES = (QWEN3_VL_MOE,)
