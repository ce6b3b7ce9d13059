"""Importance: sums of squared inputs of every product while a text runs, as llama.cpp's imatrix tool collects them.

Sums in float64 over all positions of every chunk, per weight and per expert. Table look-ups and a tied head are not
collected, the output matrix only when asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from quantcli.calibration.corpus import IMPORTANCE_CHARACTERS
from quantcli.calibration.corpus import bundled_text as bundled_text
from quantcli.errors import BadImportance
from quantcli.runner import layerwise
from quantcli.runner.arrays import Doubles, Floats
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks, chunks_of
from quantcli.runner.waiting import Waiting
from quantcli.runner.weights import PackedMatrix
from quantcli.statistics.imatrix import Importance
from quantcli.vocab.tokenizer import Tokenizer

ROWS = 256  # squared in float64 at a time
OUTPUT = "output.weight"
USUAL_LENGTH = 512
Progress = Callable[[int, str], None]


@dataclass
class Sums:
    """float64 sums [matrices, columns] and counts [matrices] of every weight that was multiplied with."""

    sums: dict[str, Doubles] = field(default_factory=dict)
    counts: dict[str, Doubles] = field(default_factory=dict)

    def add(self, weight: PackedMatrix, matrix: int, squares: Doubles, tokens: int) -> None:
        """Of ``tokens`` inputs of one matrix, per column."""
        if weight.name not in self.sums:
            self.sums[weight.name] = numpy.zeros((weight.matrices, weight.columns))
            self.counts[weight.name] = numpy.zeros(weight.matrices)
        self.sums[weight.name][matrix] += squares
        self.counts[weight.name][matrix] += tokens

    def join(self, part: Sums) -> None:
        """Add what another one holds, which is not used any more."""
        for name, sums in part.sums.items():
            if name in self.sums:
                self.sums[name] += sums
                self.counts[name] += part.counts[name]
            else:
                self.sums[name], self.counts[name] = sums, part.counts[name]


class Collecting:
    """An observer that adds up the squares of inputs: of all layers, and of the output matrix where ``output``."""

    def __init__(self, *, output: bool = False) -> None:
        self.output, self.found = output, Sums()

    def see(self, inputs: Floats, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        wanted = [w for w in weights if w.name.startswith("blk.") or (self.output and w.name == OUTPUT)]
        if wanted:
            squares = sum_of_squares(inputs, wanted[0].name)
            for weight in wanted:
                self.found.add(weight, expert or 0, squares, len(inputs))


def sum_of_squares(x: Floats, name: str) -> Doubles:
    """Per column of ``x`` [rows, columns], float64. Raises BadImportance where that is not finite."""
    total = numpy.zeros(x.shape[1])
    for start in range(0, len(x), ROWS):
        total += numpy.square(x[start : start + ROWS], dtype=numpy.float64).sum(axis=0)
    if not numpy.isfinite(total).all():
        column = int(numpy.flatnonzero(~numpy.isfinite(total))[0])
        raise BadImportance(
            f"the input's column {column} overflows or is NaN",
            where=name,
            hint="the model is damaged: try the original checkpoint",
        )
    return total


class BatchByBatch(Collecting):
    """The same for a pass layer by layer: sums of a batch are added as whole, as they are chunk by chunk."""

    def __init__(self, *, output: bool = False) -> None:
        super().__init__(output=output)
        self.total = Sums()

    def next_batch(self) -> None:
        self.total.join(self.found)
        self.found = Sums()

    def take(self) -> dict[str, Doubles]:
        """By "sums/" or "counts/" and the tensor's name."""
        total, self.total = self.total, Sums()
        return {
            **{f"sums/{name}": sums for name, sums in total.sums.items()},
            **{f"counts/{name}": counts for name, counts in total.counts.items()},
        }


def collect(
    session: Session,
    chunks: Chunks,
    *,
    output: bool = False,
    begun: tuple[Sums, int] | None = None,
    save: Callable[[Importance], None] | None = None,
    frequency: int = 0,
    progress: Progress | None = None,
    found: Iterator[Sums] | None = None,
) -> tuple[Importance, bool]:
    """(importance of the session's model on ``chunks``, interrupted).

    ``output`` collects the output matrix too. ``begun``: what an interrupted run has found in the chunks before these,
    and in how many: what comes is added to it, as that run would have done. Every ``frequency`` chunks ``save`` gets
    what is known so far. ``progress`` is told how many chunks are done, also while several run together. ``found``: the
    sums of the chunks that run together, made elsewhere. After an interrupt the complete chunks count; without any, the
    KeyboardInterrupt goes on.
    """
    total, before = begun or (Sums(), 0)
    done = saved = 0
    try:
        for part in found or _batches(session, chunks, output, progress):
            total.join(part)  # only whole batches count
            done = min(done + chunks.together, len(chunks))
            if save is not None and frequency and done - saved >= frequency and done < len(chunks):
                save(_importance(session, total, chunks, before + done))
                saved = done
            if progress is not None:
                progress(done, f"{done * chunks.length} tokens")
    except KeyboardInterrupt:
        if not done:
            raise
        return _importance(session, total, chunks, before + done), True
    return _importance(session, total, chunks, before + done), False


def _batches(session: Session, chunks: Chunks, output: bool, progress: Progress | None) -> Iterator[Sums]:
    for start, stop in chunks.batches():
        yield batch_sums(session, chunks, start, stop, output=output, told=_moving(start, stop, chunks, progress))


def batch_sums(
    session: Session,
    chunks: Chunks,
    start: int,
    stop: int,
    *,
    output: bool = False,
    told: Callable[[int, int], None] | None = None,
) -> Sums:
    """The sums of chunks ``start`` to ``stop``, which run together. ``told``: see `Network.stream`."""
    network = session.network
    collecting = Collecting(output=output and OUTPUT in network.weights)
    with network.observed_by(collecting):
        x = network.stream(chunks.inputs(start, stop), told)
        if collecting.output:
            network.head(x)
    return collecting.found


def collect_by_layer(
    session: Session,
    chunks: Chunks,
    states: Waiting,
    *,
    output: bool = False,
    progress: Progress | None = None,
) -> Importance:
    """The importance that `collect` finds, bit for bit, with one layer in memory: ``states`` keeps the rest.

    ``progress`` is told how many chunks times layers are done of `layerwise.steps_left`. Raises what
    `layerwise.pass_through` does.
    """
    network = session.network
    watcher = BatchByBatch(output=output and OUTPUT in network.weights)
    layerwise.pass_through(network, chunks, states, watcher, progress)
    total = Sums()
    for layer in range(network.settings.layers):
        total.join(_kept(states.seen(layer)))
    with network.observed_by(watcher):
        for start, stop in chunks.batches():
            x = layerwise.final(network, states, start, stop)
            network.show_further(chunks.inputs(start, stop), x)
            if watcher.output:
                network.head(x)
            watcher.next_batch()
    total.join(watcher.total)
    return _importance(session, total, chunks, len(chunks))


def _kept(arrays: Mapping[str, NDArray[numpy.generic]]) -> Sums:
    """What `BatchByBatch.take` gave."""
    found = Sums()
    for key, array in arrays.items():
        kind, _, name = key.partition("/")
        (found.sums if kind == "sums" else found.counts)[name] = array.astype(numpy.float64)
    return found


def _moving(start: int, stop: int, chunks: Chunks, progress: Progress | None) -> Callable[[int, int], None] | None:
    """Tells how far chunks ``start`` to ``stop`` are, of (layers done, layers): as if one ran after the other."""
    if progress is None:
        return None

    def told(done: int, layers: int) -> None:
        reached = start + (stop - start) * done // layers
        if reached < stop:  # what is complete is told with its sums
            progress(reached, f"{reached * chunks.length} tokens")

    return told


def _importance(session: Session, found: Sums, chunks: Chunks, done: int) -> Importance:
    return Importance(
        session.name,
        {name: found.sums[name].copy() for name in sorted(found.sums)},
        {name: counts.copy() for name, counts in found.counts.items()},
        [dataset(chunks)],
        done,
        chunks.length,
    )


def dataset(chunks: Chunks) -> str:
    """How the file names the text: without its folder, which is nobody's business."""
    return os.path.basename(chunks.name)


def calibrate(
    source: str | os.PathLike[str] | Session,
    text: str | os.PathLike[str] | None = None,
    *,
    length: int | None = None,
    chunks: int | None = None,
    threads: int | None = None,
    parse_special: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Importance:
    """Open (or take) a model, run ``text`` (default: the bundled calibration text) through it, return the importance.

    Chunks have ``length`` tokens (default: `usual_length`). Activations are float.
    ``progress`` is told (chunks done, chunks). Raises what opening and running raise.
    """
    if isinstance(source, Session):
        size = length or usual_length(source)
        cut = importance_chunks(source.tokenizer, text, size, chunks=chunks, parse_special=parse_special)
        told = None if progress is None else lambda done, note: progress(done, len(cut))
        importance, interrupted = collect(source, cut, progress=told)
        if interrupted:
            raise KeyboardInterrupt
        return importance
    options = RunOptions(activations="float", threads=threads, length=length)
    with open_session(source, options, predicts=False) as session:
        return calibrate(
            session,
            text,
            length=length,
            chunks=chunks,
            parse_special=parse_special,
            progress=progress,
        )


def usual_length(session: Session) -> int:
    """Tokens of a chunk where nobody says how many: 512, or what the model was trained with where that is less."""
    return min(USUAL_LENGTH, session.network.settings.context)


def importance_chunks(
    tokenizer: Tokenizer,
    text: str | os.PathLike[str] | None,
    length: int,
    *,
    chunks: int | None = None,
    parse_special: bool = False,
    first: int = 0,
) -> Chunks:
    """Chunks of ``text``, or of the beginning of the bundled text that importance matrices are made from."""
    return chunks_of(
        tokenizer,
        text or bundled_text(),
        length,
        chunks=chunks,
        parse_special=parse_special,
        first=first,
        characters=None if text else IMPORTANCE_CHARACTERS,
    )
