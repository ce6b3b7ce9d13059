"""The parts of a work on a text: some of its chunks, through a model that every worker opens once.

Plain functions of plain arguments, for any engine. Chunks that run together in one process are one part, and results
are merged in the order of the text: they are the same on one machine and on many, bit for bit.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantcli import __version__, places
from quantcli.calibration import collect
from quantcli.calibration.collect import Sums
from quantcli.engines import near_only
from quantcli.errors import EngineFailed
from quantcli.evaluate import divergence, likelihood
from quantcli.evaluate.divergence import Values
from quantcli.evaluate.reference import ModelSource
from quantcli.ggml import kernels
from quantcli.runner.arrays import Doubles
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks

MOST_HELD = 8  # models that a worker keeps open


@dataclass(frozen=True)
class ModelAt:
    """A model by its path, how it is run, and what must be the same where it is."""

    path: str
    options: RunOptions
    predicts: bool
    fingerprint: str
    version: str
    isa: str

    @classmethod
    def of(cls, session: Session, *, predicts: bool = True) -> ModelAt:
        """What a worker needs to open the same. Raises UsageError for a model of the hub."""
        if any(places.elsewhere(name) for name in session.model.weight_files):
            raise near_only("download the checkpoint first, or leave out --engine")
        model, options = session.model, replace(session.options, length=session.network.length)
        return cls(os.fspath(session.path), options, predicts, fingerprint(model), __version__, kernels.isa())


_held: dict[ModelAt, Session] = {}
_turn = threading.Lock()  # a network is run by one thread at a time; a worker may have several


def _session(model: ModelAt) -> Session:
    """The open model. Raises EngineFailed for a worker that would compute something else, and what opening raises."""
    if model in _held:
        return _held[model]
    _check("quantcli", __version__, model.version, f"install quantcli {model.version} on every worker")
    _check(
        "instruction set", kernels.isa(), model.isa, "their sums differ in the last bits: set QUANTCLI_SIMD everywhere"
    )
    session = open_session(model.path, model.options, predicts=model.predicts)
    if fingerprint(session.model) != model.fingerprint:
        session.close()
        raise EngineFailed(
            "is another model on a worker", where=model.path, hint="give every worker the same files under this path"
        )
    while len(_held) >= MOST_HELD:
        _held.pop(next(iter(_held))).close()
    _held[model] = session
    return session


def _check(what: str, own: str, wanted: str, hint: str) -> None:
    if own != wanted:
        raise EngineFailed(f"a worker has {what} {own}, this is {wanted}", where=platform.node(), hint=hint)


def parts(chunks: Chunks) -> list[Chunks]:
    """Those that run together, each as a text of its own."""
    return [replace(chunks, tokens=chunks.tokens[start:stop]) for start, stop in chunks.batches()]


def importance(model: ModelAt, chunks: Chunks, output: bool) -> Sums:
    """Sums of squares of the chunks' inputs, see `collect.batch_sums`."""
    with _turn:
        return collect.batch_sums(_session(model), chunks, 0, len(chunks), output=output)


def log_likelihoods(model: ModelAt, chunks: Chunks) -> list[Doubles]:
    """Negative log-likelihoods, chunk by chunk, see `likelihood.chunk_by_chunk`."""
    with _turn:
        return list(likelihood.chunk_by_chunk(_session(model), chunks))


def divergences(reference: ModelAt, models: Sequence[ModelAt], chunks: Chunks) -> list[list[Values]]:
    """Chunk by chunk, of every model, see `divergence.chunk_by_chunk`."""
    with _turn:
        source = ModelSource(_session(reference), chunks)
        return list(divergence.chunk_by_chunk(source, [_session(model) for model in models]))
