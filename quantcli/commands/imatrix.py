"""`quantcli imatrix`: collect, save on the way, resume, merge."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantcli.calibration.collect import check_resumable, collect, collect_by_layer, importance_chunks, usual_length
from quantcli.commands.elsewhere import found_by
from quantcli.commands.layer_major import Layerwise, Passes
from quantcli.engines import Arguments, tasks
from quantcli.engines.tasks import ModelAt
from quantcli.errors import UsageError
from quantcli.output import writer
from quantcli.report import tables
from quantcli.report.measurements import ImatrixResult, RunnerModel
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import layerwise
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance


@dataclass(frozen=True, kw_only=True)
class ImatrixRequest:
    """``model`` None merges ``earlier`` only. ``first`` chunks are skipped, at most ``chunks`` are run.

    ``length`` of a chunk None: as many tokens as are usual, or as the model was trained with where these are fewer.
    """

    model: Path | None
    output: Path
    text: Path | None = None
    length: int | None = None
    chunks: int | None = None
    first: int = 0
    earlier: Sequence[Path] = ()
    frequency: int = 10
    resume: bool = False
    process_output: bool = False
    layerwise: Layerwise | None = None
    engine: str | None = None
    parse_special: bool = False
    force: bool = False
    options: RunOptions = field(default_factory=lambda: RunOptions(activations="float"))


def run(request: ImatrixRequest, reporter: Reporter = SILENT) -> ImatrixResult:
    """`execute`, and show what was collected."""
    result = execute(request, reporter)
    tables.show_collection(reporter, result)
    return result


def execute(request: ImatrixRequest, reporter: Reporter = SILENT) -> ImatrixResult:
    """Do what is asked and write the file. Raises QuantcliError."""
    if request.model is None and (not request.earlier or request.text is not None or request.resume):
        raise UsageError("no model to run", hint="give MODEL, or several --in-file to merge")
    earlier = [imatrix.read(path) for path in request.earlier]
    inputs = [str(path) for path in (*request.earlier, request.text) if path is not None]
    start = time.perf_counter()
    described: RunnerModel | None = None
    if request.model is None:
        writer.check_targets([request.output], inputs, force=request.force)
        importance, interrupted = imatrix.merge(earlier, request.output.name), False
    else:
        with open_session(request.model, request.options, predicts=False) as session:
            session.network.require(request.length or usual_length(session))
            reporter.warnings(session.network.warnings)
            inputs += session.model.files
            writer.check_targets([request.output], inputs, force=request.force or request.resume)
            importance, interrupted = _collect(request, session, earlier, reporter)
            described = session.describe()
    if request.layerwise is None or request.model is None:
        save(importance, request.output)
    return {
        "schema": 1,
        "output": str(request.output),
        "model": described,
        "entries": len(importance.entries),
        "chunks": importance.chunks,
        "chunk_size": importance.chunk_size,
        "datasets": list(importance.datasets),
        "warnings": list(importance.warnings),
        "seconds": time.perf_counter() - start,
        "interrupted": interrupted,
    }


def _collect(
    request: ImatrixRequest, session: Session, earlier: list[Importance], reporter: Reporter
) -> tuple[Importance, bool]:
    chunks = importance_chunks(
        session.tokenizer,
        request.text,
        request.length or usual_length(session),
        chunks=request.chunks,
        first=request.first,
        parse_special=request.parse_special,
    )
    done: list[Importance] = []
    wish = request.layerwise
    begun = wish is not None and wish.resume and wish.states.exists()  # goes on, whatever the output holds
    if request.resume and not begun and os.path.exists(request.output):
        done = [imatrix.read(request.output)]
        skipped = check_resumable(done[0], chunks)
        if skipped >= len(chunks):
            return done[0], False
        chunks = dataclasses.replace(chunks, tokens=chunks.tokens[skipped:])
        earlier = []  # the file holds them already
    if wish is not None:
        return _by_layer(request, wish, session, chunks, [*earlier, *done], reporter), False

    def parts() -> list[Arguments]:
        model = ModelAt.of(session, predicts=False)
        return [(model, part, request.process_output) for part in tasks.parts(chunks)]

    with (
        found_by(request.engine, tasks.importance, parts, reporter) as found,
        reporter.steps(f"imatrix {session.name}", len(chunks)) as advance,
    ):
        return collect(
            session,
            chunks,
            output=request.process_output,
            earlier=[*earlier, *done],
            save=lambda part: save(part, request.output),
            frequency=request.frequency,
            progress=advance,
            found=found,
        )


def _by_layer(
    request: ImatrixRequest,
    wish: Layerwise,
    session: Session,
    chunks: Chunks,
    earlier: list[Importance],
    reporter: Reporter,
) -> Importance:
    """The same with one layer in memory. The file is written before the states of its run are gone."""
    with Passes(wish, "imatrix", reporter) as passes:
        states = passes.open(session, chunks)
        left = layerwise.steps_left(session.network, chunks, states)
        with reporter.steps(f"imatrix {session.name}, chunks x layers", left) as advance:
            importance = collect_by_layer(
                session, chunks, states, output=request.process_output, earlier=earlier, progress=advance
            )
        save(importance, request.output)
    return importance


def save(importance: Importance, path: Path) -> None:
    """Replace the file at ``path``, in the format of its suffix."""
    write = imatrix.to_dat_bytes if path.suffix == ".dat" else imatrix.to_gguf_bytes
    writer.write_bytes(path, write(importance))
