"""`quantcli compare`: references, texts and models brought together, and the result as one object."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from quantcli import __version__
from quantcli.commands.elsewhere import found_by
from quantcli.commands.layer_major import Layerwise, Passes
from quantcli.engines import Arguments, tasks
from quantcli.engines.tasks import ModelAt
from quantcli.errors import UsageError
from quantcli.evaluate import divergence
from quantcli.evaluate.base_file import BaseFile, is_base_file
from quantcli.evaluate.divergence import Values
from quantcli.evaluate.reference import ModelSource, Source
from quantcli.evaluate.reference_cache import TOP, Record, Recorder, is_record
from quantcli.evaluate.reference_states import RecordedStates, StatesRecorder, is_states
from quantcli.evaluate.scoring import Streams
from quantcli.output import writer
from quantcli.report import html, picture, tables
from quantcli.report.measurements import ComparedModel, CompareResult, Reference
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import finite
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks, chunks_of
from quantcli.sources import ways


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What is compared. ``options`` are the models'; the reference has float activations unless told otherwise."""

    reference: Path
    models: Sequence[Path]
    texts: Sequence[Path] = ()
    length: int = 512
    chunks: int | None = None
    parse_special: bool = False
    options: RunOptions = field(default_factory=RunOptions)
    reference_activations: str | None = None
    record: Path | None = None  # where the reference's predictions are kept for the next time
    top: int | None = None  # tokens of each recorded position
    states: Path | None = None  # where what leaves the reference's last layer is kept for the next time
    layerwise: Layerwise | None = None  # one layer of a model in memory at a time
    engine: str | None = None  # who runs the chunks instead of this process
    html: Path | None = None  # where a page with pictures is written
    svg: Path | None = None  # where the picture of size against divergence is written
    force: bool = False  # replace existing ones


@dataclass
class Comparison:
    """Opened models and, per text, where the reference's predictions come from."""

    request: CompareRequest
    sessions: list[Session]
    sources: list[Source]
    described: Reference
    recorders: list[Recorder | StatesRecorder | None]
    warnings: list[str]
    closing: ExitStack

    def close(self) -> None:
        self.closing.close()


def run(request: CompareRequest, reporter: Reporter = SILENT) -> CompareResult:
    """`prepare`, `execute`, then show and draw the result. Raises QuantcliError."""
    job = prepare(request)
    try:
        for text in job.warnings:
            reporter.warning(text)
        result = execute(job, reporter)
    finally:
        job.close()
    tables.show_comparison(reporter, result)
    for path in draw(request, result):
        reporter.note(f"written: {path}")
    return result


def draw(request: CompareRequest, result: CompareResult) -> Iterator[Path]:
    """Write the page and the picture that are asked for, and name each when it is there."""
    if request.html is not None:
        writer.write_text(request.html, html.render(result, __version__))
        yield request.html
    if request.svg is not None:
        writer.write_text(request.svg, picture.standalone(result))
        yield request.svg


# ---- before the work


def prepare(request: CompareRequest) -> Comparison:
    """Open everything and check that it fits together; nothing is run. Raises QuantcliError."""
    request = replace(request, reference=ways.find(request.reference))
    recorded = is_base_file(request.reference) or is_record(request.reference)
    if request.engine is not None and (recorded or request.record is not None or request.states is not None):
        raise UsageError(
            "workers run the reference: they neither read nor keep what it predicts",
            where="--engine",
            hint="name the reference's model, and leave out --reference-cache and --reference-states",
        )
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(path, request.options)) for path in request.models]
        _check_outputs(request, sessions)
        if recorded:
            sources: list[Source] = [_recorded(request, sessions, stack)]
            recorders: list[Recorder | StatesRecorder | None] = [None]
        else:
            sources, recorders = _model_sources(request, sessions, stack)
        warnings = [
            f"{session.name} was calibrated on {os.path.basename(source.chunks.name)}: its figures there flatter it"
            for source in sources
            for session in sessions
            if divergence.calibrated_on(session, source.chunks.name)
        ]
        warnings += [text for session in sessions for text in session.network.warnings]
        return Comparison(request, sessions, sources, sources[0].describe(), recorders, warnings, stack.pop_all())


def _check_outputs(request: CompareRequest, sessions: Sequence[Session]) -> None:
    """Every file that will be written, before any work: no input, no two of one name, nothing that exists."""
    kept = [
        record_path(given, index, request.texts)
        for given in (request.record, request.states)
        for index in range(len(request.texts))
    ]
    records = [path for path in kept if path is not None]
    inputs = [request.reference, *request.models, *request.texts, *(path for path in records if path.exists())]
    names = [str(path) for path in inputs] + [name for session in sessions for name in session.model.files]
    if request.reference.is_dir():
        names += [str(path) for path in request.reference.iterdir()]
    drawn = [path for path in (request.html, request.svg) if path is not None]
    writer.check_targets([*drawn, *(path for path in records if not path.exists())], names, force=request.force)


def _recorded(request: CompareRequest, sessions: Sequence[Session], stack: ExitStack) -> Source:
    """A file of predictions as the reference: it holds the text as well."""
    if request.texts or request.record is not None or request.states is not None:
        raise UsageError(
            "the reference is a file of recorded predictions, which holds its text",
            where=str(request.reference),
            hint="leave out -f, --reference-cache and --reference-states",
        )
    tokenizer = sessions[0].tokenizer
    bos = tokenizer.bos if tokenizer.add_bos else None
    source = (
        BaseFile(request.reference, bos, request.chunks)
        if is_base_file(request.reference)
        else Record(request.reference, request.chunks, _again(request.reference))
    )
    stack.callback(source.close)
    for session in sessions:
        divergence.check_vocabulary(source, session)
        session.network.require(source.chunks.length)
    return source


def _again(path: Path) -> str:
    """How to make a record again that stands for the reference."""
    name = shlex.quote(str(path))
    return f"record it again: rm {name}; quantcli compare REFERENCE MODEL... -f TEXT --reference-cache {name}"


def _model_sources(
    request: CompareRequest, sessions: Sequence[Session], stack: ExitStack
) -> tuple[list[Source], list[Recorder | StatesRecorder | None]]:
    """The reference model on each text; its predictions from (or into) the record where one is wanted."""
    if is_states(request.reference):
        raise UsageError(
            "holds states, of which only the reference's own model makes predictions",
            where=str(request.reference),
            hint=f"name the model: quantcli compare REFERENCE MODEL... -f TEXT --reference-states {request.reference}",
        )
    if request.record is not None and request.states is not None:
        raise UsageError("--reference-cache and --reference-states keep the same thing", hint="leave out one of them")
    if not request.texts:
        raise UsageError(
            "no text to compare on", where="-f", hint="give a text that no model was calibrated on: -f wiki.test.raw"
        )
    options = RunOptions(
        activations=request.reference_activations or "float",
        exact=request.options.exact,
        kv_type=None,
        threads=request.options.threads,
        length=request.length,
    )
    session = stack.enter_context(open_session(request.reference, options))
    for one in sessions:
        divergence.check_vocabulary(session, one)
    found = [_model_source(request, session, index, stack) for index in range(len(request.texts))]
    return [source for source, _ in found], [recorder for _, recorder in found]


def _model_source(
    request: CompareRequest, session: Session, index: int, stack: ExitStack
) -> tuple[Source, Recorder | StatesRecorder | None]:
    """Predictions on text number ``index``: recorded ones, or the model's own and what records them."""
    text = request.texts[index]
    chunks = chunks_of(
        session.tokenizer, text, request.length, chunks=request.chunks, parse_special=request.parse_special
    )
    path = record_path(request.states, index, request.texts)
    if path is not None:
        return _with_states(path, session, chunks, stack)
    path = record_path(request.record, index, request.texts)
    if path is None:
        return ModelSource(session, chunks), None
    if path.exists():
        record = Record(path, len(chunks))
        stack.callback(record.close)
        _check_record(record, session, chunks)
        return record, None
    source = ModelSource(session, chunks)
    recorder = Recorder(path, chunks, session.network.vocabulary, session.describe(), request.top or TOP)
    stack.callback(recorder.discard)
    return source, recorder


def _with_states(
    path: Path, session: Session, chunks: Chunks, stack: ExitStack
) -> tuple[Source, StatesRecorder | None]:
    """The reference by what left its last layer, as the file has it; or its own run, and what keeps it in the file."""
    if path.exists():
        recorded = RecordedStates(path, session, chunks)
        stack.callback(recorded.close)
        return recorded, None
    recorder = StatesRecorder(path, session, chunks)
    stack.callback(recorder.discard)
    return ModelSource(session, chunks, recorder), recorder


def record_path(record: Path | None, index: int, texts: Sequence[Path]) -> Path | None:
    """One file per text: the given name, with the text's name in it where there are several."""
    if record is None or len(texts) == 1:
        return record
    return record.with_name(f"{record.stem}-{index + 1}-{Path(texts[index]).stem}{record.suffix}")


def _check_record(record: Record, session: Session, chunks: Chunks) -> None:
    """Whether the record is of this model on this text. Raises BadReference."""
    described = record.describe()
    divergence.check_vocabulary(record, session)
    if (described["name"], described["activations"]) != (session.name, session.activations):
        raise record.file.bad(f"was recorded from {described['name']} with {described['activations']} activations")
    same = record.chunks.tokens.shape == chunks.tokens.shape and (record.chunks.tokens == chunks.tokens).all()
    if not same or record.chunks.bos != chunks.bos:
        raise record.file.bad("was recorded from another text, other chunks or fewer of them")


# ---- the work


def execute(job: Comparison, reporter: Reporter = SILENT) -> CompareResult:
    """Run the comparison. After an interrupt the figures are those of the complete chunks; layer by layer there are
    none, but the work can be gone on with."""
    wish = job.request.layerwise
    if wish is None:
        entries, interrupted = _measured(job, reporter, [{} for _ in job.sources])
    else:
        with Passes(wish, "compare", reporter) as passes:
            entries, interrupted = _measured(job, reporter, _streams(job, passes))
            if interrupted:
                raise KeyboardInterrupt
    for entry in entries:
        finite.require_figures(entry, entry["name"])
    return {
        "schema": 1,
        "reference": job.described,
        "context": job.sources[0].chunks.length,
        "models": entries,
        "interrupted": interrupted,
    }


def _streams(job: Comparison, passes: Passes) -> list[dict[int, Streams]]:
    """Every model, and the reference where it is run, on every text, one after the other layer by layer."""
    found: list[dict[int, Streams]] = []
    for text, source in enumerate(job.sources, start=1):
        streams = {}
        if isinstance(source, ModelSource):
            source.use(passes.run(source.session, source.chunks, f"{text}-reference"))
        for number, session in enumerate(job.sessions, start=1):
            streams[number - 1] = passes.run(session, source.chunks, f"{text}-{number}")
        found.append(streams)
    return found


def _measured(
    job: Comparison, reporter: Reporter, streams: Sequence[Mapping[int, Streams]]
) -> tuple[list[ComparedModel], bool]:
    """(entries, interrupted): text by text; ``streams`` per text of what has been run already, by the model's place."""
    entries: list[ComparedModel] = []
    for source, recorder, run in zip(job.sources, job.recorders, streams, strict=True):
        name = os.path.basename(source.chunks.name)
        with reporter.steps(f"compare on {name}", len(source.chunks)) as advance:
            try:
                with _values(job, source, recorder, run, reporter) as found:
                    tallies, interrupted = divergence.measure(source, job.sessions, advance, found)
            except KeyboardInterrupt:
                if not entries:
                    raise
                return entries, True
        entries += [divergence.report(tally, tallies[0], name) for tally in tallies]
        if interrupted:
            return entries, True
        if recorder is not None:
            recorder.finish()
    return entries, False


@contextmanager
def _values(
    job: Comparison,
    source: Source,
    recorder: Recorder | StatesRecorder | None,
    streams: Mapping[int, Streams],
    reporter: Reporter,
) -> Iterator[Iterator[list[Values]]]:
    """Of every chunk the values of every model: found here, or where the engine runs the chunks."""

    def parts() -> list[Arguments]:
        assert isinstance(source, ModelSource)  # others were refused
        models = [ModelAt.of(session) for session in job.sessions]
        return [(ModelAt.of(source.session), models, part) for part in tasks.parts(source.chunks)]

    with found_by(job.request.engine, tasks.divergences, parts, reporter) as found:
        if found is not None:
            yield chain.from_iterable(found)
            return
        kept = recorder if isinstance(recorder, Recorder) else None
        yield divergence.chunk_by_chunk(source, job.sessions, kept, streams)
