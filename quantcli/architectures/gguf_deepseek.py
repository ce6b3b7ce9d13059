"""DeepSeek V2 and V3: latent attention, stacked and shared experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

DEEPSEEK2 = Architecture("deepseek2", Graph(latent=True, expert_norm=False), reads=keys.EXPERTS + keys.ROUTING)

ARCHITECTURES = (DEEPSEEK2,)
