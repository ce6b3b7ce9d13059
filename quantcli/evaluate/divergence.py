"""How far models are from a reference: KL divergence and its relatives, several models in one pass.

Statistics by the formulas of llama.cpp's perplexity tool (``--kl-divergence``). Models run side by side, so only one
block of the reference's predictions exists at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from pathlib import PurePath
from typing import Any

import numpy

from quantcli.errors import VocabularyMismatch
from quantcli.evaluate import figures
from quantcli.evaluate.reference import Source
from quantcli.evaluate.reference_cache import Record, Recorder
from quantcli.evaluate.scoring import ModelScores, blocks, targets
from quantcli.report.results import ComparedModel, Divergence, MeanError, PerplexityRatio
from quantcli.runner.session import Session

Progress = Callable[[int, str], None]
SHOWN = 4  # models whose figures fit into a line of progress


@dataclass
class Values:
    """Values of scored positions in pieces: of one chunk while its blocks come in, of a text chunk by chunk."""

    nll: list[numpy.ndarray] = field(default_factory=list)  # float32 [positions] each, of the model
    base: list[numpy.ndarray] = field(default_factory=list)  # of the reference
    kld: list[numpy.ndarray] = field(default_factory=list)
    same: list[numpy.ndarray] = field(default_factory=list)  # whether both have the same likeliest token
    missed: list[tuple[float, float]] = field(default_factory=list)  # (true, recorded) divergence where both are known


@dataclass
class Tally(Values):
    """What is known about one model on one text; one piece per complete chunk."""

    session: Session | None = None


def check_vocabulary(reference: Session | Record | Any, session: Session) -> None:
    """Raises VocabularyMismatch where the model's ids mean something else than the reference's."""
    rows = reference.network.vocabulary if isinstance(reference, Session) else reference.vocabulary
    hint = "compare models that were made from one checkpoint"
    if rows != session.network.vocabulary:
        raise VocabularyMismatch(
            f"{session.network.vocabulary} tokens, the reference has {rows}", where=session.name, hint=hint
        )
    if isinstance(reference, Session):
        own, other = (s.model.metadata.get("tokenizer.ggml.tokens") for s in (session, reference))
        if own is not None and other is not None and bytes(own.data.raw) != bytes(other.data.raw):
            raise VocabularyMismatch("the tokens have other texts than the reference's", where=session.name, hint=hint)


def measure(
    source: Source, sessions: Sequence[Session], progress: Progress | None = None, recorder: Recorder | None = None
) -> tuple[list[Tally], bool]:
    """(one tally per model, interrupted) for the source's text.

    After an interrupt the tallies hold the complete chunks; without any the KeyboardInterrupt goes on.
    """
    chunks = source.chunks
    scores = [ModelScores(session.network, chunks) for session in sessions]
    tallies = [Tally(session=session) for session in sessions]
    try:
        for start, stop in chunks.batches():
            for one in (source, *scores):
                one.begin(start, stop)
            for chunk in range(start, stop):
                _add(tallies, _chunk(source, scores, chunk, recorder))
            if progress is not None:  # chunks of a batch take turns layer by layer: only whole batches tell the speed
                progress(stop, _known(tallies))
    except KeyboardInterrupt:
        if not tallies or not tallies[0].kld:
            raise
        return tallies, True
    return tallies, False


def _known(tallies: Sequence[Tally]) -> str:
    """The mean divergences so far; the least and the most of many models."""
    means = [float(numpy.concatenate(tally.kld).mean(dtype=numpy.float64)) for tally in tallies]
    shown = means if len(means) <= SHOWN else (min(means), max(means))
    return "KLD " + (", " if len(means) <= SHOWN else " to ").join(f"{mean:.5f}" for mean in shown)


def _chunk(source: Source, scores: Sequence[ModelScores], chunk: int, recorder: Recorder | None) -> list[Values]:
    """All models on one chunk."""
    found = [Values() for _ in scores]
    wholes = source.full(chunk) if isinstance(source, Record) else {}
    for block in blocks(source.chunks, chunk, scores[0].network.vocabulary if scores else 1):
        expected, wanted = source.block(block), targets(source.chunks, block)
        base = expected.nll(wanted)
        if recorder is not None:
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


def _add(tallies: Sequence[Tally], found: Sequence[Values]) -> None:
    """A chunk counts when all models have seen it."""
    for tally, one in zip(tallies, found, strict=True):
        for name in ("nll", "base", "kld", "same"):
            getattr(tally, name).append(numpy.concatenate(getattr(one, name)))
        tally.missed += one.missed


# ---- results


def report(tally: Tally, first: Tally, text: str) -> ComparedModel:
    """One entry of the result's "models": the tally's statistics, and its paired difference to the first model."""
    kld = numpy.concatenate(tally.kld)
    per_chunk = _means(tally.kld)
    same = numpy.concatenate(tally.same).mean()
    rms, rms_error = _rms_change(tally)
    kept = tally.session.describe()
    result: ComparedModel = {
        "name": kept["name"],
        "architecture": kept["architecture"],
        "bytes": kept["bytes"],
        "bpw": kept["bpw"],
        "activations": kept["activations"],
        "kv_type": kept["kv_type"],
        "exact": kept["exact"],
        "text": text,
        "chunks": len(tally.kld),
        "scored": len(kld),
        "kld": _divergence(kld),
        "ppl": _perplexities(tally),
        "same_top": 100 * float(same),
        "same_top_se": 100 * sqrt(same * (1 - same) / max(len(kld) - 1, 1)),
        "rms_dp": 100 * rms,
        "rms_dp_se": 100 * rms_error,
        "per_chunk": per_chunk,
    }
    if tally is not first:
        result["difference"] = {
            "to": first.session.name,
            "kld": paired(per_chunk, _means(first.kld)),
            "ln_ppl": paired(_means(tally.nll), _means(first.nll)),
        }
    if tally.missed:
        true, recorded = numpy.array(tally.missed).mean(axis=0)
        result["record_error"] = {
            "positions": len(tally.missed),
            "kld": float(true - recorded),
            "relative": float((true - recorded) / true) if true else 0.0,
        }
    return result


def _means(pieces: Sequence[numpy.ndarray]) -> list[float]:
    return [float(values.mean(dtype=numpy.float64)) for values in pieces]


def _divergence(kld: numpy.ndarray) -> Divergence:
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


def _perplexities(tally: Tally) -> PerplexityRatio:
    nll, base = numpy.concatenate(tally.nll), numpy.concatenate(tally.base)
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


def _rms_change(tally: Tally) -> tuple[float, float]:
    """Root mean square change of the right token's probability, and its error."""
    nll, base = numpy.concatenate(tally.nll), numpy.concatenate(tally.base)
    squares = numpy.square(numpy.exp(-nll) - numpy.exp(-base))
    mean, error = figures.mean_error(squares)
    root = sqrt(mean)
    return root, 0.5 * error / root if root else 0.0


def calibrated_on(session: Session, text: str) -> bool:
    """Whether the model says that its importance matrix comes from a text of this name: its figures flatter it then."""
    value = session.model.metadata.get("quantize.imatrix.dataset")
    name = value.data if value is not None and isinstance(value.data, str) else ""
    return bool(name) and PurePath(name).name == PurePath(text).name
