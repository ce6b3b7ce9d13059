"""MiniMax M2: q/k norms over all heads together."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MINIMAX_M2 = Architecture("minimax-m2", Graph(rope="neox", qk_norm="full"), reads=keys.EXPERTS + keys.ROUTING)

ARCHITECTURES = (MINIMAX_M2,)
