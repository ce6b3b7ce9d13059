"""The numbers that GGUF keeps beside blocks which are copied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Factors:
    """The factor of all weights of a matrix, and that of its inputs."""

    weights: float = 1.0
    inputs: float = 1.0


NO_FACTORS = Factors()
