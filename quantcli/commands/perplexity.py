"""`quantcli perplexity`: one model on one text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from quantcli.commands.elsewhere import found_by
from quantcli.commands.layer_major import Layerwise, Passes
from quantcli.engines import Arguments, tasks
from quantcli.engines.tasks import ModelAt
from quantcli.evaluate import likelihood
from quantcli.report import tables
from quantcli.report.measurements import LikelihoodResult, PerplexityResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import finite
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks, chunks_of


@dataclass(frozen=True, kw_only=True)
class PerplexityRequest:
    """Chunks of ``length`` tokens of ``text``, at most ``chunks``. ``layerwise``: one layer in memory at a time."""

    model: Path
    text: Path
    length: int = 512
    chunks: int | None = None
    parse_special: bool = False
    layerwise: Layerwise | None = None
    engine: str | None = None  # who runs the chunks instead of this process
    options: RunOptions = field(default_factory=RunOptions)


def run(request: PerplexityRequest, reporter: Reporter = SILENT) -> PerplexityResult:
    """Measure and show. After an interrupt the figures are those of the complete chunks. Raises QuantcliError."""
    with open_session(request.model, request.options) as session:
        reporter.warnings(session.network.warnings)
        chunks = chunks_of(
            session.tokenizer, request.text, request.length, chunks=request.chunks, parse_special=request.parse_special
        )
        if request.layerwise is not None:
            measured = _by_layer(request.layerwise, session, chunks, reporter)
        else:
            measured = _by_chunk(request.engine, session, chunks, reporter)
        result: PerplexityResult = {"schema": 1, "model": session.describe(), **measured}
    finite.require_figures(result, session.name)
    tables.show_perplexity(reporter, result)
    return result


def _by_chunk(engine: str | None, session: Session, chunks: Chunks, reporter: Reporter) -> LikelihoodResult:
    """Here, or where the engine runs the chunks."""

    def parts() -> list[Arguments]:
        model = ModelAt.of(session)
        return [(model, part) for part in tasks.parts(chunks)]

    with (
        found_by(engine, tasks.log_likelihoods, parts, reporter) as found,
        reporter.steps(f"perplexity {session.name}", len(chunks)) as advance,
    ):
        every = None if found is None else chain.from_iterable(found)
        return likelihood.measure(session, chunks, advance, found=every)


def _by_layer(wish: Layerwise, session: Session, chunks: Chunks, reporter: Reporter) -> LikelihoodResult:
    """The same with one layer in memory; then the head alone. All or nothing: an interrupt leaves no figures."""
    start = time.perf_counter()
    with Passes(wish, "perplexity", reporter) as passes:
        streams = passes.run(session, chunks)
        with reporter.steps(f"perplexity {session.name}, predictions", len(chunks)) as advance:
            measured = likelihood.measure(session, chunks, advance, streams)
        if measured["interrupted"]:
            raise KeyboardInterrupt
    seconds = time.perf_counter() - start
    return {**measured, "seconds": seconds, "tokens_per_second": measured["tokens"] / seconds}
