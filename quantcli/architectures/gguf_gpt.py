"""GPT-2, GPT-NeoX and gpt-oss."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GPT2 = Architecture(
    "gpt2",
    Graph(norm="layer", rope="none", learned_positions=True, fused_qkv=True, mlp="plain", activation="gelu_tanh"),
)
GPT_NEOX = Architecture(
    "gptneox",
    Graph(norm="layer", rope="neox", fused_qkv=True, parallel=True, mlp="plain", activation="gelu"),
    reads=keys.PARALLEL_RESIDUAL,
    head="required",
)
GPT_OSS = Architecture(
    "gpt-oss",
    Graph(
        rope="neox",
        second_norm="post_attention_norm",
        sinks=True,
        window_period=2,
        activation="swiglu_oai",
        expert_gating="softmax_chosen",
    ),
    reads=keys.EXPERTS,
    head="required",
)

ARCHITECTURES = (GPT2, GPT_NEOX, GPT_OSS)
