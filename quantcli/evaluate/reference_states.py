"""A reference as what leaves its last layer: exact, and small beside logits of a whole vocabulary.

Norm, output matrix, scale and cap of the reference's model make log-probabilities of it again, the very ones that its
run would give. A file of kept.py of type "quantcli.reference-states"; per chunk the tensors tokens [positions] and
states [hidden, scored positions], float32.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy

from quantcli import container
from quantcli.container import boolean, string, u32
from quantcli.container.sums import STATES as KIND
from quantcli.evaluate.kept import KeptFile, KeptWriter, kind_of
from quantcli.evaluate.reference import Full
from quantcli.evaluate.scoring import Block
from quantcli.ggml import kernels
from quantcli.report.measurements import RunnerModel
from quantcli.runner.arrays import Floats
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks


def is_states(path: str | os.PathLike[str]) -> bool:
    """Whether the file is such a record."""
    return kind_of(path) == KIND


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
        metadata = {
            "general.type": string(KIND),
            "general.name": string(session.name),
            "reference.text": string(os.path.basename(chunks.name)),
            "reference.chunks": u32(len(chunks)),
            **_facts(session, chunks),
        }
        tensors = [
            (f"chunk.{chunk}.{part}", shape, kind)
            for chunk in range(len(chunks))
            for part, shape, kind in (
                ("tokens", (chunks.length,), "I32"),
                ("states", (hidden, chunks.scored), "F32"),
            )
        ]
        self.output, self._finite = KeptWriter(path, metadata, tensors), True

    def add(self, chunk: int, states: Floats) -> None:
        """``states`` [scored positions, hidden] of the next chunk."""
        self._finite = self._finite and bool(numpy.isfinite(states).all())
        self.output.add(self.chunks.tokens[chunk])
        self.output.add(states)

    def finish(self) -> None:
        """Keep the file, unless the model gave NaN: then the figures say so, and nobody may read it again."""
        if self._finite:
            self.output.finish()
        else:
            self.discard()

    def discard(self) -> None:
        self.output.discard()


class RecordedStates:
    """A file of such states as a source. Of the model only the head is read, and nothing of it is run."""

    def __init__(self, path: Path, session: Session, chunks: Chunks) -> None:
        """Raises BadReference: the file is of another model, text or way to compute, of an earlier version, or
        damaged."""
        self.session, self.chunks = session, chunks
        self.file = KeptFile(path, KIND)
        try:
            self._check_facts()
            for chunk in range(len(chunks)):
                self._check_tokens(chunk)
        except BaseException:
            self.close()
            raise
        self._held: tuple[int, Floats] | None = None

    def _check_facts(self) -> None:
        """Whether it is of this reference."""
        for key, value in _facts(self.session, self.chunks).items():
            found = self.file.header.metadata.get(key)
            if found is None or found.data != value.data:
                what, was = key.removeprefix("reference."), None if found is None else found.data
                raise self.file.bad(f"was recorded with another {what} ({str(was)[:16]}, now {str(value.data)[:16]})")

    def _check_tokens(self, chunk: int) -> None:
        """Whether a chunk is there, and of the text's tokens."""
        tokens = self._array(chunk, "tokens", (self.chunks.length,), "I32")
        if not numpy.array_equal(tokens, self.chunks.tokens[chunk]):
            raise self.file.bad(f"was recorded from another text: chunk {chunk}")

    def _array(self, chunk: int, part: str, shape: tuple[int, ...], kind: str) -> numpy.ndarray:
        """One tensor of a chunk, of the numpy ``shape`` that it must have."""
        found = self.file.array(f"chunk.{chunk}.{part}", shape, kind)
        if found is None:
            raise self.file.bad(f"has no {part} of chunk {chunk}")
        return found

    def begin(self, start: int, stop: int) -> None:
        """Nothing to prepare."""

    def block(self, block: Block) -> Full:
        network = self.session.network
        if self._held is None or self._held[0] != block.chunk:
            shape = (self.chunks.scored, network.settings.hidden)
            states = self._array(block.chunk, "states", shape, "F32").astype(numpy.float32, copy=False)
            self._held = block.chunk, states
        start, stop = (place - self.chunks.first_scored for place in (block.start, block.stop))
        log_probs = network.log_probs(self._held[1][None, start:stop])
        return Full(log_probs.reshape(log_probs.shape[1:]))

    def describe(self) -> RunnerModel:
        """The model that the states are of."""
        return self.session.describe()

    def close(self) -> None:
        self.file.close()
