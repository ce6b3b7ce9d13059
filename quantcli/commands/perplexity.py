"""`quantcli perplexity`: one model on one text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quantcli.evaluate import likelihood
from quantcli.report import tables
from quantcli.report.measurements import PerplexityResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import finite
from quantcli.runner.session import RunOptions, open_session
from quantcli.runner.text import chunks_of


@dataclass(frozen=True, kw_only=True)
class PerplexityRequest:
    """Chunks of ``length`` tokens of ``text``, at most ``chunks`` of them."""

    model: Path
    text: Path
    length: int = 512
    chunks: int | None = None
    parse_special: bool = False
    options: RunOptions = field(default_factory=RunOptions)


def run(request: PerplexityRequest, reporter: Reporter = SILENT) -> PerplexityResult:
    """Measure and show. After an interrupt the figures are those of the complete chunks. Raises QuantcliError."""
    with open_session(request.model, request.options) as session:
        reporter.warnings(session.network.warnings)
        chunks = chunks_of(
            session.tokenizer, request.text, request.length, chunks=request.chunks, parse_special=request.parse_special
        )
        with reporter.steps(f"perplexity {session.name}", len(chunks)) as advance:
            measured = likelihood.measure(session, chunks, advance)
        result: PerplexityResult = {"schema": 1, "model": session.describe(), **measured}
    finite.require_figures(result, session.name)
    tables.show_perplexity(reporter, result)
    return result
