"""`quantcli imatrix`: collect, save on the way, resume, merge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantcli.calibration import origin
from quantcli.calibration.collect import Sums, collect, collect_by_layer, importance_chunks, usual_length
from quantcli.calibration.origin import Begun, Origin
from quantcli.commands.elsewhere import found_by
from quantcli.commands.layer_major import Layerwise, Passes
from quantcli.engines import Arguments, tasks
from quantcli.engines.tasks import ModelAt
from quantcli.errors import Interrupted, OutputExists, ResumeRefused, UsageError
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
    ``resume``: what an earlier run has left is gone on with, or the matrix that lies there. With ``force`` what cannot
    be is replaced.
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
            _check_place(request, inputs)
            importance, interrupted = _collect(request, session, earlier, reporter)
            described = session.describe()
    if request.layerwise is None or request.model is None:
        save(importance, request.output)
    if request.model is not None and not interrupted:
        origin.forget(request.output)
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


def collect_whole(request: ImatrixRequest, reporter: Reporter = SILENT) -> None:
    """`execute` for a verb that goes on with the matrix. Raises Interrupted where it is not complete."""
    result = execute(request, reporter)
    if result["interrupted"]:
        raise Interrupted(
            f"interrupted; {result['chunks']} chunks are kept",
            where=str(request.output),
            hint=f"the same command {'' if request.resume else 'with --resume '}goes on",
        )


def unfinished(output: Path) -> bool:
    """Whether an interrupted run has left what waits to become the matrix ``output``."""
    return origin.beside(output).exists()


def _check_place(request: ImatrixRequest, inputs: Sequence[str]) -> None:
    """Before any work: whether the matrix can be written. Raises what `writer.check_targets` does."""
    origin.check_place(request.output)
    try:
        writer.check_targets([request.output], inputs, force=request.force or request.resume)
    except OutputExists as error:
        if unfinished(request.output):
            error.hint = "an interrupted run has left it: --resume goes on with that, --force begins anew"
        raise


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
    whole = origin.of(session, chunks, first=request.first, output=request.process_output, added=earlier)
    begun = _begun(request, whole, reporter)
    if begun.base is not None:
        if begun.done == len(chunks) and not begun.chunks:
            return begun.base, False
        earlier = [begun.base]  # which holds the others
    left = replace(chunks, tokens=chunks.tokens[begun.done :])

    def made_of(found: Importance) -> Importance:
        """The matrix, with those that are added; it says of what it is."""
        made = imatrix.merge([*earlier, found], found.name) if earlier else found
        return replace(made, origin=whole.at(begun.done - begun.chunks + found.chunks))

    if request.layerwise is not None:
        return _by_layer(request, request.layerwise, session, left, made_of, reporter), False

    def keep(found: Importance) -> None:
        origin.keep(request.output, whole, begun.done - begun.chunks + found.chunks, found, begun.base)
        save(made_of(found), request.output)

    own, interrupted = _by_batch(request, session, left, (begun.sums, begun.chunks), keep, reporter)
    return made_of(own), interrupted


def _begun(request: ImatrixRequest, whole: Origin, reporter: Reporter) -> Begun:
    """What earlier runs have done. Raises ResumeRefused where it is of something else, unless that is to go."""
    if not request.resume:
        return Begun()
    try:
        begun = _left(request, whole)
    except ResumeRefused as error:
        if not request.force:
            raise
        reporter.note(f"note: {error}: begun anew")
        return Begun()
    if begun.done:
        reporter.note(f"note: {request.output} holds {begun.done} of {len(whole.chunks)} chunks already")
    if begun.base is not None and begun.done < len(whole.chunks):
        reporter.note("note: sums in a matrix are rounded: the last bits will differ from those of one run")
    return begun


def _left(request: ImatrixRequest, whole: Origin) -> Begun:
    """What an interrupted run has left, or the complete matrix that lies there."""
    wish = request.layerwise
    if wish is not None and layerwise.holds(wish.states, whole.chunks):
        return Begun()  # all of it waits there, whatever the output holds
    kept = origin.kept(request.output, whole) if wish is None else None
    return kept or origin.complete(request.output, whole) or Begun()


def _by_batch(
    request: ImatrixRequest,
    session: Session,
    left: Chunks,
    begun: tuple[Sums, int],
    keep: Callable[[Importance], None],
    reporter: Reporter,
) -> tuple[Importance, bool]:
    """What ``left`` adds to what is ``begun``, chunks that run together at a time, and whether it was interrupted."""

    def parts() -> list[Arguments]:
        model = ModelAt.of(session, predicts=False)
        return [(model, part, request.process_output) for part in tasks.parts(left)]

    with (
        found_by(request.engine, tasks.importance, parts, reporter) as found,
        reporter.steps(f"imatrix {session.name}", len(left)) as advance,
    ):
        own, interrupted = collect(
            session,
            left,
            output=request.process_output,
            begun=begun,
            save=keep,
            frequency=request.frequency,
            progress=advance,
            found=found,
        )
    if interrupted:
        keep(own)
    return own, interrupted


def _by_layer(
    request: ImatrixRequest,
    wish: Layerwise,
    session: Session,
    left: Chunks,
    made_of: Callable[[Importance], Importance],
    reporter: Reporter,
) -> Importance:
    """The same with one layer in memory. The file is written before the states of its run are gone."""
    with Passes(wish, "imatrix", reporter) as passes:
        states = passes.open(session, left)
        steps = layerwise.steps_left(session.network, left, states)
        with reporter.steps(f"imatrix {session.name}, chunks x layers", steps) as advance:
            found = collect_by_layer(session, left, states, output=request.process_output, progress=advance)
        importance = made_of(found)
        save(importance, request.output)
    return importance


def save(importance: Importance, path: Path) -> None:
    """Replace the file at ``path``, in the format of its suffix."""
    write = imatrix.to_dat_bytes if path.suffix == ".dat" else imatrix.to_gguf_bytes
    writer.write_bytes(path, write(importance))
