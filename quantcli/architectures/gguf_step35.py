"""Step 3.5: windows with heads of their own, which rotate whole; a gate for each head; bounded experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

STEP35 = Architecture(
    "step35",
    Graph(
        rope="neox", rope_share=0.5, qk_norm="head", attention_gate="sigmoid", window_period=1, window_divisors=False,
        window_rope_base=10000.0, scaled_window_rope=False, expert_gating="sigmoid", expert_norm=False,
        limited="activated",
    ),
    reads=keys.EXPERTS + keys.ROUTING, harmless=("moe_every_n_layers",), head="required",
)  # fmt: skip

ARCHITECTURES = (STEP35,)
