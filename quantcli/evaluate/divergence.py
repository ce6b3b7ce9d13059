"""How far models are from a reference: KL divergence and its relatives, several models in one pass.

Statistics by the formulas of llama.cpp's perplexity tool (``--kl-divergence``). Models run side by side, so only one
block of the reference's predictions exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from pathlib import PurePath
from typing import Protocol

import numpy

from quantcli.errors import VocabularyMismatch
from quantcli.evaluate import figures
from quantcli.evaluate.reference import Flags, Full, Source
from quantcli.evaluate.reference_cache import Record, Recorder
from quantcli.evaluate.scoring import ModelScores, Streams, blocks, targets
from quantcli.report.measurements import ComparedModel, Divergence, MeanError, PerplexityRatio
from quantcli.runner.arrays import Floats
from quantcli.runner.session import Session

Progress = Callable[[int, str], None]
SHOWN = 4  # models whose figures fit into a line of progress


@dataclass
class Values:
    """Values of scored positions in pieces: of one chunk while its blocks come in, of a text chunk by chunk."""

    nll: list[Floats] = field(default_factory=list)  # [positions] each, of the model
    base: list[Floats] = field(default_factory=list)  # of the reference
    kld: list[Floats] = field(default_factory=list)
    same: list[Flags] = field(default_factory=list)  # whether both have the same likeliest token
    missed: list[tuple[float, float]] = field(default_factory=list)  # (true, recorded) divergence where both are known

    def add(self, chunk: Values) -> None:
        """All blocks of a chunk as one more piece."""
        self.nll.append(numpy.concatenate(chunk.nll))
        self.base.append(numpy.concatenate(chunk.base))
        self.kld.append(numpy.concatenate(chunk.kld))
        self.same.append(numpy.concatenate(chunk.same))
        self.missed += chunk.missed


@dataclass
class Tally:
    """What is known about one model on one text; one piece per complete chunk."""

    session: Session
    values: Values = field(default_factory=Values)


class Recorded(Protocol):
    """A reference that is no open model."""

    vocabulary: int


def check_vocabulary(reference: Session | Recorded, session: Session) -> None:
    """Raises VocabularyMismatch where the model's ids mean something else than the reference's."""
    expected = reference.network.vocabulary if isinstance(reference, Session) else reference.vocabulary
    hint = "compare models that were made from one checkpoint"
    if expected != session.network.vocabulary:
        raise VocabularyMismatch(
            f"{session.network.vocabulary} tokens, the reference has {expected}", where=session.name, hint=hint
        )
    if isinstance(reference, Session):
        own, other = (s.model.metadata.get("tokenizer.ggml.tokens") for s in (session, reference))
        if own is not None and other is not None and bytes(own.data.raw) != bytes(other.data.raw):
            raise VocabularyMismatch("the tokens have other texts than the reference's", where=session.name, hint=hint)


def measure(
    source: Source,
    sessions: Sequence[Session],
    progress: Progress | None = None,
    found: Iterator[list[Values]] | None = None,
) -> tuple[list[Tally], bool]:
    """(one tally per model, interrupted) for the source's text. ``found``: what `chunk_by_chunk` gives, made elsewhere.

    After an interrupt the tallies hold the complete chunks; without any the KeyboardInterrupt goes on.
    """
    tallies = [Tally(session) for session in sessions]
    whole = {stop for _, stop in source.chunks.batches()}
    try:
        for done, values in enumerate(
            found or chunk_by_chunk(source, sessions), start=1
        ):  # a chunk counts when all models have seen it
            for tally, one in zip(tallies, values, strict=True):
                tally.values.add(one)
            if progress is not None and done in whole:
                # chunks of a batch take turns layer by layer: only whole batches tell the speed
                progress(done, _known(tallies))
    except KeyboardInterrupt:
        if not tallies or not tallies[0].values.kld:
            raise
        return tallies, True
    return tallies, False


def chunk_by_chunk(
    source: Source,
    sessions: Sequence[Session],
    recorder: Recorder | None = None,
    streams: Mapping[int, Streams] | None = None,
) -> Iterator[list[Values]]:
    """Of every chunk of the source's text the values of every model. ``streams``: by the model's place, what has been
    run already."""
    chunks, ready = source.chunks, streams or {}
    scores = [ModelScores(session.network, chunks, ready.get(place)) for place, session in enumerate(sessions)]
    for start, stop in chunks.batches():
        source.begin(start, stop)
        for score in scores:
            score.begin(start, stop)
        for chunk in range(start, stop):
            yield _chunk(source, scores, chunk, recorder)


def _known(tallies: Sequence[Tally]) -> str:
    """The mean divergences so far; the least and the most of many models."""
    means = [float(numpy.concatenate(tally.values.kld).mean(dtype=numpy.float64)) for tally in tallies]
    shown = means if len(means) <= SHOWN else (min(means), max(means))
    return "KLD " + (", " if len(means) <= SHOWN else " to ").join(f"{mean:.5f}" for mean in shown)


def _chunk(source: Source, scores: Sequence[ModelScores], chunk: int, recorder: Recorder | None) -> list[Values]:
    """All models on one chunk."""
    found = [Values() for _ in scores]
    wholes = source.full(chunk) if isinstance(source, Record) else {}
    for block in blocks(source.chunks, chunk, scores[0].network.vocabulary if scores else 1):
        expected, wanted = source.block(block), targets(source.chunks, block)
        base = expected.nll(wanted)
        if recorder is not None and isinstance(expected, Full):
            recorder.add(block, expected, wanted)
        for one, score in zip(found, scores, strict=True):
            log_probs, operations = score.block(block), score.network.operations
            kld, same = expected.compare(log_probs, operations)
            one.nll.append(-numpy.take_along_axis(log_probs, wanted[:, None], axis=1)[:, 0])
            one.base.append(base)
            one.kld.append(kld.astype(numpy.float32))
            one.same.append(same)
            for place in (p - block.start for p in wholes if block.start <= p < block.stop):
                true, _ = wholes[place + block.start].compare(log_probs[place, None], operations)
                one.missed.append((float(true[0]), float(one.kld[-1][place])))
    return found


# ---- results


def report(tally: Tally, first: Tally, text: str) -> ComparedModel:
    """One entry of the result's "models": the tally's statistics, and its paired difference to the first model."""
    values = tally.values
    kld = numpy.concatenate(values.kld)
    same = float(numpy.concatenate(values.same).mean())
    rms, rms_error = _rms_change(values)
    result: ComparedModel = {
        **tally.session.describe(),  # type: ignore[typeddict-item]  # it never has the keys that are added below
        "text": text,
        "chunks": len(values.kld),
        "scored": len(kld),
        "kld": _spread(kld),
        "ppl": _perplexities(values),
        "same_top": 100 * same,
        "same_top_se": 100 * sqrt(same * (1 - same) / max(len(kld) - 1, 1)),
        "rms_dp": 100 * rms,
        "rms_dp_se": 100 * rms_error,
        "per_chunk": _means(values.kld),
    }
    if tally is not first:
        result["difference"] = {
            "to": first.session.name,
            "kld": paired(_means(values.kld), _means(first.values.kld)),
            "ln_ppl": paired(_means(values.nll), _means(first.values.nll)),
        }
    if values.missed:
        true, recorded = numpy.array(values.missed).mean(axis=0)
        result["record_error"] = {
            "positions": len(values.missed),
            "kld": float(true - recorded),
            "relative": float((true - recorded) / true) if true else 0.0,
        }
    return result


def _means(pieces: Sequence[Floats]) -> list[float]:
    """Of every piece."""
    return [float(piece.mean(dtype=numpy.float64)) for piece in pieces]


def _spread(kld: Floats) -> Divergence:
    """Of the divergences at all scored positions."""
    ordered = numpy.sort(kld)
    mean, error = figures.mean_error(kld)
    return {
        "mean": mean,
        "se": error,
        "median": figures.percentile(ordered, 0.5),
        "p90": figures.percentile(ordered, 0.9),
        "p95": figures.percentile(ordered, 0.95),
        "p99": figures.percentile(ordered, 0.99),
        "p999": figures.percentile(ordered, 0.999),
        "max": float(ordered[-1]),
        "min": float(ordered[0]),
    }


def paired(own: Sequence[float], others: Sequence[float]) -> MeanError:
    """Mean difference over chunks and its standard error: what both have in common cancels."""
    differences = numpy.subtract(own, others)
    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return {"mean": float(differences.mean()), "se": deviation / sqrt(len(differences))}


def _perplexities(values: Values) -> PerplexityRatio:
    nll, base = numpy.concatenate(values.nll), numpy.concatenate(values.base)
    (own, own_error), (other, other_error) = figures.mean_error(nll), figures.mean_error(base)
    variance = own_error**2 + other_error**2 - 2 * figures.covariance(nll, base)
    ratio = exp(min(own - other, 700.0))
    error = sqrt(max(variance, 0.0))
    return {
        "mean": exp(min(own, 700.0)),
        "se": exp(min(own, 700.0)) * own_error,
        "reference": exp(min(other, 700.0)),
        "ratio": ratio,
        "ratio_se": ratio * error,
        "ln_ratio": log(ratio) if ratio else 0.0,
        "ln_ratio_se": error,
    }


def _rms_change(values: Values) -> tuple[float, float]:
    """Root mean square change of the right token's probability, and its error."""
    nll, base = numpy.concatenate(values.nll), numpy.concatenate(values.base)
    squares = numpy.square(numpy.exp(-nll) - numpy.exp(-base))
    mean, error = figures.mean_error(squares)
    root = sqrt(mean)
    return root, 0.5 * error / root if root else 0.0


def calibrated_on(session: Session, text: str) -> bool:
    """Whether the model says that its importance matrix comes from a text of this name: its figures flatter it then."""
    value = session.model.metadata.get("quantize.imatrix.dataset")
    name = value.data if value is not None and isinstance(value.data, str) else ""
    return bool(name) and PurePath(name).name == PurePath(text).name
