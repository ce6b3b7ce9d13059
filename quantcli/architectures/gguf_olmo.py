"""OLMo (norms without weights), 2 and 3 (norms after attention and MLP only; 3 has windows), OLMoE (full q/k norms)."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

OLMO = Architecture("olmo", Graph(norm="layer", norm_weights=False), reads=keys.CLAMP, layers_of_70b=80)
OLMO2 = Architecture(
    "olmo2",
    Graph(rope="neox", pre_norm=False, post_norm=True, qk_norm="full", window_period=4, scaled_window_rope=False),
    head="required",
)
OLMOE = Architecture(
    "olmoe", Graph(rope="neox", qk_norm="full", expert_norm=False), reads=keys.EXPERTS, head="required"
)

ARCHITECTURES = (OLMO, OLMO2, OLMOE)
