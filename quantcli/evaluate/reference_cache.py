"""A compact record of a reference: per position the likeliest tokens' log-probabilities and the mass of the rest.

The divergence over "each of the top k, and the rest as one" is a lower bound of the true one. How much it misses is
measured: a few positions of every chunk are recorded in full. A file of kept.py of type "quantcli.reference"; per
chunk the tensors tokens, ids and log_probs [k, positions], sums [2, positions] (logarithm of the rest's mass,
log-probability of the target), full [vocabulary, full positions].
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy

from quantcli.container import boolean, string, u32
from quantcli.container.sums import CACHE as KIND
from quantcli.evaluate.kept import KeptFile, KeptWriter, kind_of
from quantcli.evaluate.reference import Distribution, Flags, Full
from quantcli.evaluate.scoring import Block
from quantcli.report.measurements import RecordedReference, RunnerModel
from quantcli.runner.arrays import Doubles, Floats, Ids
from quantcli.runner.operations import Operations
from quantcli.runner.text import Chunks

TOP = 512  # tokens of each position
MOST_FULL = 16  # fully recorded positions of a chunk
LEAST = -80.0  # stands for the logarithm of no mass at all
PARTS = ("tokens", "ids", "log_probs", "sums", "full")


def full_positions(chunks: Chunks, top: int, vocabulary: int) -> list[int]:
    """Which positions of a chunk are recorded in full: as many as take about the room of the rest, spread evenly."""
    count = min(max(1, 2 * chunks.scored * top // vocabulary), MOST_FULL, chunks.scored)
    return [chunks.first_scored + (2 * i + 1) * chunks.scored // (2 * count) for i in range(count)]


class Top:
    """The recorded part of the predictions at some positions."""

    def __init__(self, ids: Ids, log_probs: Floats, rest: Floats, target: Floats) -> None:
        """``ids`` and ``log_probs`` [positions, k], most likely first; ``rest``, ``target`` [positions]."""
        self.ids, self.log_probs, self.rest, self.target = ids, log_probs, rest, target

    def nll(self, targets: Ids) -> Floats:
        return numpy.negative(self.target)

    def compare(self, other: Floats, operations: Operations) -> tuple[Doubles, Flags]:
        taken = numpy.take_along_axis(other, self.ids, axis=1)
        known = numpy.einsum("ij,ij->i", numpy.exp(self.log_probs), self.log_probs - taken, dtype=numpy.float64)
        left = 1 - numpy.exp(taken).sum(axis=1, dtype=numpy.float64)
        other_rest = numpy.where(left > 0, numpy.log(numpy.maximum(left, 1e-35)), LEAST)
        found = known + numpy.exp(self.rest.astype(numpy.float64)) * (self.rest - other_rest)
        return found, self.ids[:, 0] == other.argmax(axis=1)


def summarise(distribution: Full, targets: Ids, top: int) -> Top:
    """The ``top`` likeliest tokens (most likely first) and the logarithm of what is left."""
    log_probs = distribution.log_probs
    ids = numpy.argpartition(-log_probs, top - 1, axis=1)[:, :top]
    values = numpy.take_along_axis(log_probs, ids, axis=1)
    order = numpy.lexsort((ids, -values), axis=1)
    ids, values = numpy.take_along_axis(ids, order, axis=1), numpy.take_along_axis(values, order, axis=1)
    left = 1 - numpy.exp(values).sum(axis=1, dtype=numpy.float64)
    rest = numpy.where(left > 0, numpy.log(numpy.maximum(left, 1e-35)), LEAST)
    return Top(ids.astype(numpy.int32), values, rest.astype(numpy.float32), -distribution.nll(targets))


class Recorder:
    """Writes the record while a comparison runs; `add` takes the blocks in order."""

    def __init__(self, path: Path, chunks: Chunks, vocabulary: int, described: RunnerModel, top: int = TOP) -> None:
        self.chunks, self.top = chunks, min(top, vocabulary)
        scored, count = chunks.scored, len(chunks)
        self.places = full_positions(chunks, self.top, vocabulary)
        shapes = [(chunks.length,), (self.top, scored), (self.top, scored), (2, scored), (vocabulary, len(self.places))]
        tensors = [
            (f"chunk.{chunk}.{part}", shape, _type_of(part))
            for chunk in range(count)
            for part, shape in zip(PARTS, shapes, strict=True)
        ]
        metadata = {
            "general.type": string(KIND),
            "general.name": string(described["name"]),
            "reference.text": string(chunks.name),
            "reference.context": u32(chunks.length),
            "reference.chunks": u32(count),
            "reference.top": u32(self.top),
            "reference.vocabulary": u32(vocabulary),
            "reference.has_bos": boolean(chunks.bos is not None),
            "reference.bos": u32(chunks.bos or 0),
            "reference.activations": string(described["activations"]),
        }
        self.output = KeptWriter(path, metadata, tensors)
        self._parts: list[Top] = []
        self._full: list[Floats] = []

    def add(self, block: Block, distribution: Full, targets: Ids) -> None:
        """Take a block; the last of a chunk writes the chunk."""
        self._parts.append(summarise(distribution, targets, self.top))
        self._full += [
            distribution.log_probs[p - block.start].copy() for p in self.places if block.start <= p < block.stop
        ]
        if block.stop == self.chunks.length - 1:
            sums = [numpy.concatenate([getattr(p, name) for p in self._parts]) for name in ("rest", "target")]
            arrays = (
                self.chunks.tokens[block.chunk],
                numpy.concatenate([p.ids for p in self._parts]),
                numpy.concatenate([p.log_probs for p in self._parts]),
                numpy.stack(sums, axis=1),
                numpy.stack(self._full),
            )
            for array in arrays:
                self.output.add(array)
            self._parts, self._full = [], []

    def finish(self) -> None:
        self.output.finish()

    def discard(self) -> None:
        self.output.discard()


def _type_of(part: str) -> str:
    return "I32" if part in ("tokens", "ids") else "F32"


def is_record(path: str | os.PathLike[str]) -> bool:
    """Whether the file is such a record."""
    return kind_of(path) == KIND


class Record:
    """A recorded reference as a source."""

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None, again: str | None = None) -> None:
        """``again``: how to record it again, unless the same command does. Raises BadReference."""
        self.path = Path(path)
        self.file = KeptFile(self.path, KIND, again)
        try:
            self._read_facts(limit)
        except BaseException:
            self.close()
            raise
        self._held: tuple[int, list[numpy.ndarray]] | None = None

    def _read_facts(self, limit: int | None) -> None:
        numbers, metadata = {}, self.file.header.metadata
        for key in ("context", "chunks", "top", "vocabulary", "bos"):
            value = metadata.get(f"reference.{key}")
            if value is None or not isinstance(value.data, int) or not 0 <= value.data < 1 << 24:
                raise self.file.bad(f"reference.{key} is missing or absurd")
            numbers[key] = value.data
        self.vocabulary, self.top = numbers["vocabulary"], numbers["top"]
        has_bos = metadata.get("reference.has_bos")
        count = min(numbers["chunks"], limit or numbers["chunks"])
        self.scored = numbers["context"] - 1 - numbers["context"] // 2
        tokens = [self._array(i, "tokens", (numbers["context"],)) for i in range(count)]
        if not tokens:
            raise self.file.bad("no chunks")
        bos = numbers["bos"] if has_bos is not None and has_bos.data else None
        text = metadata.get("reference.text")
        name = text.data if text is not None and isinstance(text.data, str) else self.path.name
        self.chunks = Chunks(name, numpy.stack(tokens), bos)

    def _array(self, chunk: int, part: str, shape: tuple[int, ...]) -> numpy.ndarray:
        """One tensor of a chunk, of the numpy ``shape`` it must have."""
        kind = _type_of(part)
        array = self.file.array(f"chunk.{chunk}.{part}", shape, kind)
        if array is None:
            raise self.file.bad(f"chunk {chunk} has no fitting {part}")
        if kind == "I32" and (array.min() < 0 or array.max() >= self.vocabulary):
            raise self.file.bad(f"chunk {chunk} has ids beyond {self.vocabulary}")
        return array

    def begin(self, start: int, stop: int) -> None:
        """Nothing to prepare."""

    def block(self, block: Block) -> Distribution:
        if self._held is None or self._held[0] != block.chunk:
            shapes = ((self.scored, self.top), (self.scored, self.top), (self.scored, 2))
            self._held = (
                block.chunk,
                [self._array(block.chunk, part, shape) for part, shape in zip(PARTS[1:4], shapes, strict=True)],
            )
        start, stop = (place - self.chunks.first_scored for place in (block.start, block.stop))
        ids, log_probs, sums = (array[start:stop] for array in self._held[1])
        return Top(ids, log_probs, sums[:, 0], sums[:, 1])

    def full(self, chunk: int) -> dict[int, Full]:
        """The predictions of a chunk that are recorded whole, by position."""
        places = full_positions(self.chunks, self.top, self.vocabulary)
        rows = self._array(chunk, "full", (len(places), self.vocabulary))
        return {place: Full(row[None]) for place, row in zip(places, rows, strict=True)}

    def describe(self) -> RecordedReference:
        def text(key: str) -> str:
            value = self.file.header.metadata.get(key)
            return value.data if value is not None and isinstance(value.data, str) else ""

        return {
            "name": text("general.name"),
            "kind": f"record of the top {self.top}",
            "bytes": self.file.header.file_size,
            "activations": text("reference.activations"),
        }

    def close(self) -> None:
        self.file.close()
