"""A compact record of a reference: per position the likeliest tokens' log-probabilities and the mass of the rest.

The divergence over "each of the top k, and the rest as one" is a lower bound of the true one. How much it misses is
measured: a few positions of every chunk are recorded in full. A GGUF container of type "quantcli.reference"; per
chunk the tensors tokens, ids and log_probs [k, positions], sums [2, positions] (logarithm of the rest's mass,
log-probability of the target), full [vocabulary, full positions].
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy

from quantcli import container
from quantcli.container import boolean, string, u32
from quantcli.errors import BadReference, QuantcliError
from quantcli.evaluate.reference import Distribution, Flags, Full
from quantcli.evaluate.scoring import Block
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.output import writer
from quantcli.report.measurements import RecordedReference, RunnerModel
from quantcli.runner.arrays import Doubles, Floats, Ids
from quantcli.runner.operations import Operations
from quantcli.runner.text import Chunks
from quantcli.sources.files import SourceFile

KIND = "quantcli.reference"
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
        types = [BY_NAME[name].id for name in ("I32", "I32", "F32", "F32", "F32")]
        tensors = [(shape, type_id) for _ in range(count) for shape, type_id in zip(shapes, types, strict=True)]
        names = [f"chunk.{i}.{part}" for i in range(count) for part in PARTS]
        offsets, size = container.place_tensors(tensors)
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
        placed = [(name, *one, offset) for name, one, offset in zip(names, tensors, offsets, strict=True)]
        header = container.encode_header(metadata, placed)
        self.output = writer.OutputFile(path, len(header) + size, force=True)
        self.output.append(header)
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
                data = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
                self.output.append(data + bytes(container.padded(len(data)) - len(data)))
            self._parts, self._full = [], []

    def finish(self) -> None:
        self.output.finish()
        self.output.publish()

    def discard(self) -> None:
        self.output.discard()


def is_record(path: str | os.PathLike[str]) -> bool:
    """Whether the file is such a record."""
    try:
        kind = container.read_header(path).metadata.get("general.type")
    except (QuantcliError, OSError):
        return False
    return kind is not None and kind.data == KIND


class Record:
    """A recorded reference as a source."""

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        """Raises BadReference, MalformedFile, MissingFile."""
        self.header = container.read_header(path)
        self.file = SourceFile(path)
        numbers = {}
        for key in ("context", "chunks", "top", "vocabulary", "bos"):
            value = self.header.metadata.get(f"reference.{key}")
            if value is None or not isinstance(value.data, int) or not 0 <= value.data < 1 << 24:
                raise BadReference(f"reference.{key} is missing or absurd", where=str(path))
            numbers[key] = value.data
        self.vocabulary, self.top = numbers["vocabulary"], numbers["top"]
        self.path = Path(path)
        has_bos = self.header.metadata.get("reference.has_bos")
        count = min(numbers["chunks"], limit or numbers["chunks"])
        self.scored = numbers["context"] - 1 - numbers["context"] // 2
        tokens = [self._array(i, "tokens", (numbers["context"],)) for i in range(count)]
        if not tokens:
            raise BadReference("no chunks", where=str(path))
        bos = numbers["bos"] if has_bos is not None and has_bos.data else None
        text = self.header.metadata.get("reference.text")
        name = text.data if text is not None and isinstance(text.data, str) else self.path.name
        self.chunks = Chunks(name, numpy.stack(tokens), bos)
        self._held: tuple[int, list[numpy.ndarray]] | None = None

    def _array(self, chunk: int, part: str, shape: tuple[int, ...]) -> numpy.ndarray:
        """One tensor of a chunk, of the numpy ``shape`` it must have."""
        info = self.header.by_name.get(f"chunk.{chunk}.{part}")
        integer = part in ("tokens", "ids")
        type_id = BY_NAME["I32" if integer else "F32"].id
        if info is None or info.elements != numpy.prod(shape) or info.type_id != type_id:
            raise BadReference(f"chunk {chunk} has no fitting {part}", where=str(self.path), hint="record it again")
        raw = self.file.read(self.header.data_start + info.offset, info.bytes)
        array = numpy.frombuffer(raw, "<i4" if integer else "<f4").reshape(shape)
        if integer and (array.min() < 0 or array.max() >= self.vocabulary):
            raise BadReference(f"chunk {chunk} has ids beyond {self.vocabulary}", where=str(self.path))
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
            value = self.header.metadata.get(key)
            return value.data if value is not None and isinstance(value.data, str) else ""

        return {
            "name": text("general.name"),
            "kind": f"record of the top {self.top}",
            "bytes": self.file.size,
            "activations": text("reference.activations"),
        }

    def close(self) -> None:
        self.file.close()
