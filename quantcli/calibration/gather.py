"""An observer that adds up second moments and maxima of the inputs of every product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from quantcli.calibration.moments import Moments
from quantcli.runner.arrays import Floats
from quantcli.runner.weights import PackedMatrix


class Gathering:
    """``moments``: per tensor name and expert (0 where there are none); tensors that read one input share theirs.

    ``largest``: the largest magnitude of every column, float32 [columns], by the same keys.
    """

    def __init__(self) -> None:
        self.moments: dict[tuple[str, int], Moments] = {}
        self.largest: dict[tuple[str, int], Floats] = {}

    def see(self, inputs: Floats, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        keys = [(weight.name, expert or 0) for weight in weights]
        if keys[0] not in self.moments:
            moments = Moments.zero(inputs.shape[1], cross=False)
            largest = numpy.zeros(inputs.shape[1], numpy.float32)
            for key in keys:
                self.moments[key], self.largest[key] = moments, largest
        self.moments[keys[0]].add(inputs)
        numpy.maximum(self.largest[keys[0]], numpy.abs(inputs).max(axis=0), out=self.largest[keys[0]])

    def of(self, weight: PackedMatrix, expert: int) -> Moments:
        """What one matrix read; nothing for an expert that no token was sent to."""
        found = self.moments.get((weight.name, expert))
        return found if found is not None else Moments.zero(weight.columns, cross=False)
