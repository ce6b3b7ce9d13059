"""The numbers that GGUF keeps beside blocks which are copied."""

from __future__ import annotations

from typing import NamedTuple


class Factors(NamedTuple):
    """The factor of all weights of a matrix, and that of its inputs; ``wide``: inputs are not to be cut to 4 bits."""

    weights: float = 1.0
    inputs: float = 1.0
    wide: bool = False


NO_FACTORS = Factors()
