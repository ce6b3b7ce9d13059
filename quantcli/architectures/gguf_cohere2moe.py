"""Command A with experts: one LayerNorm for attention and experts, the shared expert averaged with the others."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

COHERE2_MOE = Architecture(
    "cohere2moe",
    Graph(
        norm="layer",
        parallel=True,
        window_period=4,
        window_last_full=False,
        rope_in_windows=True,
        rope_in_dense=True,
        expert_gating="sigmoid",
        expert_norm=False,
        shared_expert="average",
    ),
    reads=keys.EXPERTS + keys.ROUTING + ("logit_scale",),
)

ARCHITECTURES = (COHERE2_MOE,)
