"""Ling: version 1 like Llama with experts, version 2 with q/k norms and sigmoid routing; what is known of version 3."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

BAILING_MOE = Architecture("bailingmoe", Graph(expert_norm=False), reads=keys.EXPERTS + keys.ROUTING)
BAILING_MOE2 = Architecture(
    "bailingmoe2",
    Graph(rope="neox", fused_qkv=True, qk_norm="head", expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
    head="required",
)
BAILING_MOE3 = Architecture("bailingmoe3", recipe_variant="bailingmoe3")

ARCHITECTURES = (BAILING_MOE, BAILING_MOE2, BAILING_MOE3)
