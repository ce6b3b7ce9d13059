"""An observer that fetches the inputs of one group of products and ends the pass there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.network import Network
from quantcli.runner.weights import PackedMatrix

PartOf = Callable[[Floats, Cache], Floats]


class _Reached(Exception):
    """Everything that was asked for has been seen."""


@dataclass(frozen=True)
class Stage:
    """Matrices that read one input, in the order in which a part of a layer multiplies. ``routed``: per expert."""

    weights: tuple[PackedMatrix, ...]
    routed: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(weight.name for weight in self.weights)


class _Listing:
    """Notes every group of products once, in order."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def see(self, inputs: Floats, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        stage = Stage(tuple(weights), expert is not None)
        if stage.names not in [known.names for known in self.stages]:
            self.stages.append(stage)


class _Fetching:
    """Copies the inputs of one stage, (expert, inputs) each, and raises `_Reached` when it has them all.

    ``stops`` False: the pass goes on.
    """

    def __init__(self, stage: Stage, *, stops: bool = True) -> None:
        self.stage, self.stops = stage, stops
        self.found: list[tuple[int, Floats]] = []

    def see(self, inputs: Floats, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        if tuple(weight.name for weight in weights) == self.stage.names:
            self.found.append((expert or 0, inputs.copy()))
            if self.stops and not self.stage.routed:
                raise _Reached
        elif self.stops and self.found:
            raise _Reached


def stages_of(network: Network, part: PartOf, x: Floats, cache: Cache) -> list[Stage]:
    """The groups of products of a layer's part, as it multiplies a stream ``x`` [S, T, H]."""
    listing = _Listing()
    with network.observed_by(listing):
        part(x, cache)
    return listing.stages


def inputs_of(network: Network, part: PartOf, stage: Stage, x: Floats, cache: Cache) -> list[tuple[int, Floats]]:
    """(expert, inputs [tokens, columns]) that ``stage`` reads when the part runs on ``x`` [S, T, H].

    The expert is 0 where there are none.
    """
    fetching = _Fetching(stage)
    with network.observed_by(fetching), suppress(_Reached):
        part(x, cache)
    return fetching.found


def inputs_and_output(
    network: Network, part: PartOf, stage: Stage, x: Floats, cache: Cache
) -> tuple[list[tuple[int, Floats]], Floats]:
    """`inputs_of`, and what the part makes of ``x``."""
    fetching = _Fetching(stage, stops=False)
    with network.observed_by(fetching):
        output = part(x, cache)
    return fetching.found, output
