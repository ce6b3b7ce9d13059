"""InternLM 2."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

INTERNLM2 = Architecture("internlm2", Graph(), head="required")

ARCHITECTURES = (INTERNLM2,)
