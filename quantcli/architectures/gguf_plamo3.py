"""Plamo 3: windows in most layers, four norms a layer."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

PLAMO3 = Architecture("plamo3", Graph(
    rope="neox", fused_qkv=True, qk_norm="head", post_norm=True, mlp="fused", window_period=8, scaled_window_rope=False,
    window_rope_base=10000.0, bare_norms=("post_attention_norm", "post_ffw_norm"),
))  # fmt: skip

ARCHITECTURES = (PLAMO3,)
