"""Plamo 2: Mamba 2 with the projections of Mamba 1, and attention; four norms a layer."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

BARE = ("post_attention_norm", "post_ffw_norm", "ssm_b_norm", "ssm_c_norm", "ssm_dt_norm")
PLAMO2 = Architecture("plamo2", Graph(
    rope="neox", fused_qkv=True, qk_norm="each", post_norm=True, mlp="fused", recurrent="plamo2",
    recurrent_layers="without_key_values", bare_norms=BARE,
))  # fmt: skip

ARCHITECTURES = (PLAMO2,)
