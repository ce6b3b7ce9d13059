"""Choosing the next token from logits: greedy, or temperature with top-k, top-p and min-p, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from quantcli.errors import UsageError
from quantcli.runner.arrays import Doubles, Reals


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 are off."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        limits = {"temperature": (0, 100), "top_k": (0, 1 << 31), "top_p": (0, 1), "min_p": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"{getattr(self, name)} is not between {low} and {high}", where="--" + name.replace("_", "-")
                )


class Sampler:
    """Draws tokens; the same seed and logits give the same tokens."""

    def __init__(self, settings: Sampling) -> None:
        self.settings = settings
        self.random = numpy.random.default_rng(settings.seed)

    def choose(self, logits: Reals) -> int:
        """A token from ``logits`` [vocabulary]: filters in llama.cpp's order, top-k, top-p, min-p, then temperature."""
        s = self.settings
        if s.temperature == 0:
            return int(logits.argmax())
        order = numpy.argsort(-logits, kind="stable")[: s.top_k or None]
        values = logits[order].astype(numpy.float64)
        probs = _softmax(values)
        keep = numpy.cumsum(probs) - probs < s.top_p  # as many as are needed to reach top_p, at least one
        keep &= probs >= s.min_p * probs[0]
        keep[0] = True
        probs = _softmax(values[keep] / s.temperature)
        return int(order[keep][self.random.choice(len(probs), p=probs)])


def _softmax(values: Doubles) -> Doubles:
    shifted: Doubles = numpy.exp(values - values.max())
    total: numpy.float64 = shifted.sum()
    return shifted / total
