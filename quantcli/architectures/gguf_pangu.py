"""openPangu-Embedded."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

PANGU_EMBEDDED = Architecture("pangu-embedded", Graph(rope="neox"))

ARCHITECTURES = (PANGU_EMBEDDED,)
