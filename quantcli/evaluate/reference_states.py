"""A reference as what leaves its last layer: exact, and small beside logits of a whole vocabulary.

Norm, output matrix, scale and cap of the reference's model make log-probabilities of it again, the very ones that its
run would give. A GGUF container of type "quantcli.reference-states"; per chunk the tensors tokens [positions] and
states [hidden, scored positions], float32.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy

from quantcli import container
from quantcli.container import boolean, string, u32
from quantcli.errors import BadReference, QuantcliError
from quantcli.evaluate.reference import Full
from quantcli.evaluate.scoring import Block
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.output import writer
from quantcli.report.measurements import RunnerModel
from quantcli.runner.arrays import Floats
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks
from quantcli.sources.files import SourceFile

KIND = "quantcli.reference-states"
HINT = "delete it, or name another file with --reference-states"


def is_states(path: str | os.PathLike[str]) -> bool:
    """Whether the file is such a record."""
    try:
        kind = container.read_header(path).metadata.get("general.type")
    except (QuantcliError, OSError):
        return False
    return kind is not None and kind.data == KIND


def _facts(session: Session, chunks: Chunks) -> dict[str, container.Value]:
    """What the states depend on, besides the tokens."""
    return {
        "reference.model": string(fingerprint(session.model)),
        "reference.activations": string(session.activations),
        "reference.kv_type": string(session.network.kv_type),
        "reference.isa": string(kernels.isa()),
        "reference.context": u32(chunks.length),
        "reference.has_bos": boolean(chunks.bos is not None),
        "reference.bos": u32(chunks.bos or 0),
    }


class StatesRecorder:
    """Writes the file while a comparison runs; `add` takes the chunks in order."""

    def __init__(self, path: Path, session: Session, chunks: Chunks) -> None:
        """Raises OutputFailed where there is no room for it."""
        self.chunks, hidden = chunks, session.network.settings.hidden
        tensors = [
            shape
            for _ in range(len(chunks))
            for shape in (((chunks.length,), BY_NAME["I32"].id), ((hidden, chunks.scored), BY_NAME["F32"].id))
        ]
        names = [f"chunk.{i}.{part}" for i in range(len(chunks)) for part in ("tokens", "states")]
        offsets, size = container.place_tensors(tensors)
        metadata = {
            "general.type": string(KIND),
            "general.name": string(session.name),
            "reference.text": string(os.path.basename(chunks.name)),
            "reference.chunks": u32(len(chunks)),
            **_facts(session, chunks),
        }
        placed = [(name, *one, offset) for name, one, offset in zip(names, tensors, offsets, strict=True)]
        header = container.encode_header(metadata, placed)
        self.output = writer.OutputFile(path, len(header) + size, force=True)
        self.output.append(header)

    def add(self, chunk: int, states: Floats) -> None:
        """``states`` [scored positions, hidden] of the next chunk."""
        for array in (self.chunks.tokens[chunk], states):
            data = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
            self.output.append(data + bytes(container.padded(len(data)) - len(data)))

    def finish(self) -> None:
        self.output.finish()
        self.output.publish()

    def discard(self) -> None:
        self.output.discard()


class RecordedStates:
    """A file of such states as a source. Of the model only the head is read, and nothing of it is run."""

    def __init__(self, path: Path, session: Session, chunks: Chunks) -> None:
        """Raises BadReference: the file is of another model, text or way to compute, or damaged."""
        self.path, self.session, self.chunks = path, session, chunks
        self.header = container.read_header(path)
        if not is_states(path):
            raise BadReference("holds no states of a reference", where=str(path), hint=HINT)
        for key, value in _facts(session, chunks).items():
            found = self.header.metadata.get(key)
            if found is None or found.data != value.data:
                what, was = key.removeprefix("reference."), None if found is None else found.data
                raise BadReference(
                    f"was recorded with another {what} ({str(was)[:16]}, now {str(value.data)[:16]})",
                    where=str(path),
                    hint=HINT,
                )
        self.file = SourceFile(path)
        try:
            for chunk in range(len(chunks)):
                self._check(chunk)
        except BaseException:
            self.close()
            raise
        self._held: tuple[int, Floats] | None = None

    def _check(self, chunk: int) -> None:
        """Whether a chunk is there, and of the text's tokens."""
        tokens = self._array(chunk, "tokens", (self.chunks.length,))
        if not numpy.array_equal(tokens, self.chunks.tokens[chunk]):
            raise BadReference(f"was recorded from another text: chunk {chunk}", where=str(self.path), hint=HINT)

    def _array(self, chunk: int, part: str, shape: tuple[int, ...]) -> numpy.ndarray:
        """One tensor of a chunk, of the numpy ``shape`` that it must have."""
        info = self.header.by_name.get(f"chunk.{chunk}.{part}")
        type_id = BY_NAME["I32" if part == "tokens" else "F32"].id
        if info is None or info.elements != numpy.prod(shape) or info.type_id != type_id:
            raise BadReference(f"has no {part} of chunk {chunk}", where=str(self.path), hint=HINT)
        raw = self.file.read(self.header.data_start + info.offset, info.bytes)
        return numpy.frombuffer(raw, "<i4" if part == "tokens" else "<f4").reshape(shape)

    def begin(self, start: int, stop: int) -> None:
        """Nothing to prepare."""

    def block(self, block: Block) -> Full:
        network = self.session.network
        if self._held is None or self._held[0] != block.chunk:
            shape = (self.chunks.scored, network.settings.hidden)
            self._held = block.chunk, self._array(block.chunk, "states", shape).astype(numpy.float32, copy=False)
        start, stop = (place - self.chunks.first_scored for place in (block.start, block.stop))
        log_probs = network.log_probs(self._held[1][None, start:stop])
        return Full(log_probs.reshape(log_probs.shape[1:]))

    def describe(self) -> RunnerModel:
        """The model that the states are of."""
        return self.session.describe()

    def close(self) -> None:
        self.file.close()
