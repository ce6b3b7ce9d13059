"""What models are compared with: another model, or recorded probabilities (llama.cpp's file, or our compact one)."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.evaluate.scoring import Block, ModelScores, Streams
from quantcli.report.measurements import Reference, RunnerModel
from quantcli.runner.arrays import Doubles, Floats, Ids
from quantcli.runner.operations import Operations
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks

Flags: TypeAlias = NDArray[numpy.bool_]

CLAMPED = -16.0  # llama.cpp's base files clamp what is less likely; it takes no part in the divergence


class Distribution(Protocol):
    """The reference's predictions at some positions."""

    def nll(self, targets: Ids) -> Floats:
        """Negative log-likelihood of each position's target, float32 [positions]."""
        ...

    def compare(self, other: Floats, operations: Operations) -> tuple[Doubles, Flags]:
        """KL(reference || other) per position in float64, and whether both have the same likeliest token (the first of
        equals), from the other's log-probabilities [positions, vocabulary]."""
        ...


class Full:
    """Log-probabilities of the whole vocabulary, float32 [positions, vocabulary].

    With a ``cutoff``, tokens that are not likelier take no part in the divergence.
    """

    def __init__(self, log_probs: Floats, cutoff: float | None = None) -> None:
        self.log_probs, self.cutoff = log_probs, cutoff

    def nll(self, targets: Ids) -> Floats:
        return -numpy.take_along_axis(self.log_probs, targets[:, None], axis=1)[:, 0]

    def compare(self, other: Floats, operations: Operations) -> tuple[Doubles, Flags]:
        base = self.log_probs
        if self.cutoff is not None:
            shares = numpy.where(base > self.cutoff, numpy.exp(base), numpy.float32(0))
            found = numpy.einsum("ij,ij->i", shares, base - other, dtype=numpy.float64)
            return found, base.argmax(axis=1) == other.argmax(axis=1)
        found, own_top, other_top = operations.divergence(base, other)
        return found, own_top == other_top


class Source(Protocol):
    """A reference for one text."""

    chunks: Chunks

    def begin(self, start: int, stop: int) -> None:
        """Prepare chunks ``start`` to ``stop``."""
        ...

    def block(self, block: Block) -> Distribution: ...

    def describe(self) -> Reference:
        """What a result says about the reference, "name" at least."""
        ...


class Keeper(Protocol):
    """Who keeps what leaves the last layer."""

    def add(self, chunk: int, states: Floats) -> None:
        """``states`` [scored positions, hidden] of the next chunk."""
        ...


class ModelSource:
    """A model that runs beside those it is compared with; only one block of its predictions exists at a time.

    ``keeper`` gets what leaves the last layer at the scored positions of every chunk.
    """

    def __init__(self, session: Session, chunks: Chunks, keeper: Keeper | None = None) -> None:
        self.session, self.chunks, self.keeper = session, chunks, keeper
        self.scores = ModelScores(session.network, chunks)

    def use(self, streams: Streams) -> None:
        """What has been run already."""
        self.scores = ModelScores(self.session.network, self.chunks, streams)

    def begin(self, start: int, stop: int) -> None:
        self.scores.begin(start, stop)
        if self.keeper is None:
            return
        for chunk, states in enumerate(self.scores.x, start=start):
            scored = states[None, self.chunks.first_scored : self.chunks.length - 1]
            self.keeper.add(chunk, self.session.network.narrowed(scored)[0])

    def block(self, block: Block) -> Full:
        return Full(self.scores.block(block))

    def describe(self) -> RunnerModel:
        return self.session.describe()
