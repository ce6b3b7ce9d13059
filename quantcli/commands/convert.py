"""`quantcli convert`: models in, GGUF files out, each source read once for all file types.

`prepare` does everything that can fail cheaply (names, plans, importance, targets), `describe` is the dry run,
`execute` does the work. A job may hold several models; their files appear together. The result is the JSON object of
the command.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli import loader, system
from quantcli.calibration.quality import UNKNOWN, Used
from quantcli.commands import checks, existing, hashing, parting, provenance, resuming, targets
from quantcli.commands.describing import describe as describe
from quantcli.commands.job import ConvertRequest, Job, Part
from quantcli.commands.writing import execute as execute
from quantcli.errors import OutputExists
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model
from quantcli.plan import plan, recipes
from quantcli.plan.options import Options
from quantcli.plan.plan import Plan
from quantcli.plan.recipes import FileType
from quantcli.report import tables
from quantcli.report.terminal import SILENT, Reporter
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance

if TYPE_CHECKING:
    from quantcli.commands.planning import Planning
    from quantcli.commands.sizing import Sizing
    from quantcli.report.results import ConvertResult

MOST_THREADS = 256  # each holds slabs in memory; beyond this it is a typing error
COLLECTED = "imatrix.gguf"  # name of the matrix that --imatrix auto collects, beside the output


def run(request: ConvertRequest, reporter: Reporter = SILENT) -> ConvertResult:
    """`calibrated`, `prepare`, `describe` for a dry run or `execute`; and show the result. Raises QuantcliError."""
    if request.skip_existing:
        request, nothing = without_existing(request, reporter)
        if nothing is not None:
            return nothing
    with targets.no_empty_folder(request.output):
        wanted = calibrated(request, reporter)
        if wanted.imatrix != request.imatrix:
            reporter.note(f"note: the importance matrix is kept as {wanted.imatrix}")
        job = prepare(wanted, reporter)
        try:
            result = carry_out(job, reporter)
        finally:
            job.close()
    one = len(result["outputs"]) == 1
    tables.show_conversion(reporter, result, tensors=request.dry_run and (one or request.every_tensor))
    return result


def without_existing(request: ConvertRequest, reporter: Reporter) -> tuple[ConvertRequest, ConvertResult | None]:
    """What ``skip_existing`` leaves of the request; the result where that is nothing. Raises QuantcliError."""
    looked = prepare(existing.first_look(request))
    looked.close()
    for first, *more in (found := existing.find(looked)):
        reporter.note(f"note: {first} {f'and {len(more)} more are' if more else 'is'} there: kept")
    kept = frozenset(path for files in found for path in files)
    left = any(part.plans for part in existing.leave_out(looked.parts, kept))
    return replace(request, skip_existing=False, kept=kept), None if left else {**describe(looked), "outputs": []}


def carry_out(job: Job, reporter: Reporter = SILENT) -> ConvertResult:
    """What a prepared job is about, or its dry run. Raises QuantcliError."""
    request = job.request
    for text in job.notes:
        reporter.note(f"note: {text}")
    for text in job.warnings:
        reporter.warning(text)
    start = time.monotonic()
    found = choose_types(job, reporter)
    if request.dry_run:
        from quantcli.commands import estimating

        result = describe(job)
        result["estimate"] = estimating.estimate(job)
        return result
    if not request.resume:
        resuming.tell(job, reporter)
    _compensate(job, reporter)
    result = execute(job, start=start, reporter=reporter)
    in_part = bool(request.part or request.kept or result.get("resumed_bytes"))
    for text in checks.hash_notes((part.model for part in job.parts), in_part=in_part):
        reporter.note(f"note: {text}")
    if request.html is not None:
        from quantcli.commands import reporting  # brings the runner, which most conversions do without

        result["report"] = reporting.write(job, result, request.html, found, reporter)
    return result


def calibrated(request: ConvertRequest, reporter: Reporter = SILENT) -> ConvertRequest:
    """With ``collect`` the request that uses a matrix collected from the bundled text, kept beside the output.

    Everything else about the request is checked first: collecting takes minutes. A dry run collects nothing. A run that
    resumes goes on collecting where an earlier one was stopped.
    """
    if not request.collect or request.dry_run:
        return request
    from quantcli.commands import imatrix as collecting  # brings the runner, which most conversions do without

    job = prepare(replace(request, allow_no_imatrix=True), reporter)
    begun = request.resume and resuming.unfinished(job) is not None
    job.close()
    output, matrix = request.output, Path(COLLECTED)
    if output is not None:
        matrix = (output if _into_folder(request, output) else output.parent) / COLLECTED
    if begun and matrix.is_file() and not collecting.unfinished(matrix):
        return replace(request, imatrix=matrix, collect=False)  # its journal says which it was
    wanted = collecting.ImatrixRequest(model=request.source, output=matrix, force=request.force, resume=request.resume)
    try:
        collecting.collect_whole(wanted, reporter)
    except OutputExists as error:
        if not collecting.unfinished(matrix):
            error.hint = f"use it with --imatrix {shlex.quote(str(matrix))}, or replace it with --force"
        raise
    return replace(request, imatrix=matrix, collect=False)


def _into_folder(request: ConvertRequest, output: Path) -> bool:
    return targets.is_folder(output, len(request.file_types), into_folder=request.into_folder)


# ---- before the work


@dataclass(frozen=True, eq=False, repr=False)
class Opened:
    """What a request reads before anything is planned: its models, and the importance matrix. And their plans."""

    models: Sequence[Model]
    importance: Importance | None
    whole: parting.Whole = field(default_factory=parting.Whole)

    def close(self) -> None:
        """Close the sources."""
        for model in self.models:
            model.close()


def open_sources(request: ConvertRequest) -> Opened:
    """Headers and small files are read. Raises QuantcliError."""
    importance = None
    if request.imatrix is not None:
        given = imatrix.read(request.imatrix, checked=request.part is None)  # a part looks at what it uses
        importance = given.filtered(request.include_weights, request.exclude_weights)
    system.allow_open_files()
    return Opened(_open(request), importance)


def prepare(request: ConvertRequest, reporter: Reporter = SILENT, *, hashed: bool = True) -> Job:
    """Open, plan and check. Nothing is written; whatever is wrong shows here. Raises QuantcliError.

    Where a run can be resumed the weights' files are hashed in the end, unless it is a dry run or somebody else does it
    (``hashed`` is false): ``reporter`` shows how far that is.
    """
    opened = open_sources(request)
    try:
        return prepare_opened(request, opened, reporter, hashed=hashed)
    except BaseException:
        opened.close()
        raise


def _open(request: ConvertRequest) -> list[Model]:
    """The models that the request converts, the one that the result is about first."""
    if request.lora_base is not None:
        return [loader.open_adapter(request.source, request.lora_base, request.architecture)]
    merge = None if request.merge_lora is None else loader.Merge(request.merge_lora, request.lora_scale)
    if request.mmproj_only:
        return [loader.open_projector(request.source, merge, image_break=request.image_break)]
    return loader.open_models(
        request.source,
        architecture=request.architecture,
        pre_tokenizer=request.pre_tokenizer,
        chat_template=request.chat_template,
        projector=request.mmproj is not None,
        image_break=request.image_break,
        merge=merge,
        put_off=parting.may_put_off(request),
    ).every


def prepare_models(
    request: ConvertRequest,
    models: Sequence[Model],
    importance: Importance | None = None,
    reporter: Reporter = SILENT,
    *,
    hashed: bool = True,
) -> Job:
    """The job that converts opened models, all with the options of ``request``. Raises QuantcliError."""
    return prepare_opened(request, Opened(models, importance), reporter, hashed=hashed)


def prepare_opened(request: ConvertRequest, opened: Opened, reporter: Reporter = SILENT, *, hashed: bool = True) -> Job:
    """`prepare` with what is open already, also for an earlier part of the same conversion. Raises QuantcliError."""

    def taken() -> list[Part]:
        divided = parting.take(request, opened.whole.parts(opened.models, lambda: _planned(request, opened)))
        return existing.leave_out(divided, request.kept)

    def parts() -> list[Part]:
        found = taken()
        if all(model.complete for model in opened.models) or not _with_first(found):
            return found
        for model in opened.models:
            model.read_vocabulary()
        return taken()

    job = Job(request, parts(), min(request.threads or system.usable_cores(), MOST_THREADS))
    notes = [note for part in job.parts for note in part.model.notes] + [
        note for one in job.plans for note in one.notes
    ]
    job.notes = list(dict.fromkeys(notes))
    job.warnings = [text for part in job.parts for text in part.model.warnings]
    job.warnings += checks.importance_warnings(job.plans) + checks.method_warnings(job.plans, request.choice)
    job.warnings += checks.template_warnings(_with_templates(job), request.chat_template)
    if request.strict:
        fallen = (tables.fallback_warning(output) for output in describe(job)["outputs"])
        checks.refuse_warnings([*job.warnings, *filter(None, fallen)])
    if not request.dry_run:
        checks.check_kernels(job.plans, request.choice)
        _check_files(job)
        if hashed and _know_hashes(job, reporter):
            job.parts = parts()  # headers tell what the weights' files hash to
    return job


def _planned(request: ConvertRequest, opened: Opened) -> list[Part]:
    """Every model with its plans and where they go."""
    models, importance = opened.models, opened.importance
    if request.pad or request.wish is not None:
        models = [model.plain() for model in models]
    if request.pad:
        from quantcli.transforms import pad  # few widths are no multiple of 256

        models = [pad.apply(model) if model.role == "text" else model for model in models]
    wanted = [_wanted(request, model, importance) for model in models]
    labels = [[label for _, label in own] for own in wanted]
    conventional = request.names == "convention"
    paths = targets.name_parts(
        models, labels, request.output, into_folder=request.into_folder, conventional=conventional
    )
    parts = [
        Part(model, [_plan(request, model, one, importance, checked=False) for one, _ in own], targets_of)
        for model, own, targets_of in zip(models, wanted, paths, strict=True)
    ]
    for one, files in ((one, files) for part in parts for one, files in zip(part.plans, part.files, strict=True)):
        if not request.kept.issuperset(files):
            _check(request, one)
    return parts


def _with_first(parts: Sequence[Part]) -> list[Plan]:
    """The plans that write the first shard, which tells the metadata."""
    return [one for part in parts for one in part.plans if hashing.first_shard(one) is not None]


def _with_templates(job: Job) -> list[Plan]:
    """The plans whose chat templates are looked at, by a process of their own: those that write them, so that of many
    parts one does; all of them where the user gives one, for it may be refused."""
    return job.plans if job.request.chat_template is not None else _with_first(job.parts)


def _know_hashes(job: Job, reporter: Reporter) -> bool:
    """Find out what the weights' files hash to where that is known, and where a run is resumed, whose headers must be
    complete; others are hashed while they are read. Whether there was anything to find out."""
    told = [one.model for one in _with_first(job.parts)]
    if not told:
        return False
    recalled = resuming.recall(job)
    late = () if job.request.resume else hashing.unknown(job)
    paths = dict.fromkeys(path for model in told for path in model.weight_files if path not in model.digests)
    return provenance.settle(job, [path for path in paths if path not in late], reporter) or recalled


def _wanted(request: ConvertRequest, model: Model, importance: Importance | None) -> list[tuple[FileType, str]]:
    """The file types of a model, and how files of them are called."""
    if request.sizing is None or model.role != "text":
        return [(one, one.name) for one in request.types_for(model)]
    return [request.sizing.base(model, _options(request, model, recipes.parse("Q8_0"), importance))]


def _plan(
    request: ConvertRequest,
    model: Model,
    file_type: FileType,
    importance: Importance | None,
    used: Used = UNKNOWN,
    assignment: Mapping[str, TensorType] | None = None,
    *,
    checked: bool = True,
) -> Plan:
    made = plan.make(model, _options(request, model, file_type, importance, used), assignment)
    if checked:
        _check(request, made)
    return made


def _check(request: ConvertRequest, made: Plan) -> None:
    finds_importance = request.wish is not None or request.sizing is not None  # where it runs the model
    made.check(
        writing=not request.dry_run,
        allow_no_imatrix=request.allow_no_imatrix or finds_importance,
        allow_requantize=request.allow_requantize,
    )


def _options(
    request: ConvertRequest, model: Model, file_type: FileType, importance: Importance | None, used: Used = UNKNOWN
) -> Options:
    made = provenance.of(request, model, file_type, used)
    if model.role != "text" and request.mmproj is not None:  # the options are about the language model
        return Options(file_type, provenance=made)
    return Options(
        file_type,
        pure=request.pure,
        overrides=request.overrides,
        output_tensor_type=request.output_tensor_type,
        token_embedding_type=request.token_embedding_type,
        leave_output_tensor=request.leave_output_tensor,
        imatrix=request.collect or request.wish is not None or request.sizing is not None,
        importance=importance,
        keep_split=request.keep_split,
        split_max_size=request.split_max_size,
        metadata=request.metadata,
        provenance=made,
    )


def _check_files(job: Job) -> None:
    request = job.request
    inputs = [name for part in job.parts for name in part.model.files]
    inputs += [str(path) for path in (request.imatrix, *request.option_files) if path is not None]
    paths = list(job.written)
    earlier = resuming.unfinished(job) if request.resume else None
    if earlier is not None:  # those that an earlier run has given their names already are looked at when it goes on
        paths = [path for path in paths if not earlier.may_have_published(path)]
    wish = request.wish or (request.sizing.wish if request.sizing is not None else None)
    if wish is not None and wish.keep is not None:
        from quantcli.calibration.folder import check_place  # brings the runner, which most conversions do without

        check_place(wish.keep)
    with targets.made_folder(_new_folder(request)):
        targets.check_targets(paths, inputs, force=request.force, listed=request.checksums)


def _new_folder(request: ConvertRequest) -> Path | None:
    """The folder that the outputs go into, where it is not there yet."""
    if request.output is not None and not request.output.exists() and _into_folder(request, request.output):
        return request.output
    return None


# ---- the work


def choose_types(job: Job, reporter: Reporter) -> Planning | None:
    """Where a size is asked for: the plan that loses least, from what the model itself says."""
    sizing, part = job.request.sizing, job.parts[0]
    if sizing is None:
        return None
    found = planned(job, sizing, reporter)
    if sizing.target.max_kld is not None:
        _bound(job, found, sizing.target.max_kld, reporter)
        return found
    from quantcli.plan import budget

    part.plans[0] = found.choosing.plan(budget.target_bytes(sizing.target, part.model, part.plans[0].options))
    return found


def _bound(job: Job, found: Planning, most: float, reporter: Reporter) -> None:
    """The smallest plan within a measured divergence, and the recipe that is nearest to its size."""
    from quantcli.commands import bounding
    from quantcli.plan import budget

    part, request = job.parts[0], job.request
    assert part.ready is not None
    best = bounding.smallest(found, part.ready, request.choice, most, reporter)
    given = best.plan.options
    file_type = budget.nearest(part.model, given, best.plan.file_bytes)
    types = {entry.tensor.name: entry.type for entry in best.plan.entries if entry.type.quantized}
    types |= best.plan.assignment
    part.plans[0] = _plan(request, part.model, file_type, given.importance, assignment=types)
    part.made = None if best.made is None else [best.made]


def planned(job: Job, sizing: Sizing, reporter: Reporter) -> Planning:
    """What the types of the job's first model would cost."""
    from quantcli.commands import compensating, planning  # they bring the runner, which most conversions do without

    part = job.parts[0]
    base = part.plans[0]
    part.ready = compensating.ready(part.model, sizing.wish, job.threads, reporter)

    def make(types: Mapping[str, TensorType], importance: Importance | None) -> Plan:
        given = base.options.importance or importance
        return _plan(job.request, part.model, base.file_type, given, assignment=types)

    return planning.prepare(part.ready, sizing.freedom, make, reporter)


def _compensate(job: Job, reporter: Reporter) -> None:
    """Give every plan tensors that are encoded already, where the request wants more than the search."""
    wish = job.request.wish
    if wish is None:
        return
    from quantcli.commands import compensating  # brings the runner, which most conversions do without

    for part in job.parts:
        if part.model.role != "text" or not part.plans:
            continue
        part.ready = part.ready or compensating.ready(part.model, wish, job.threads, reporter)
        for number, made in enumerate(part.made or compensating.run(part.ready, list(part.plans), reporter)):
            used, tensors, outcomes = made
            one = part.plans[number]
            again = _plan(job.request, part.model, one.file_type, one.options.importance, used, one.assignment)
            part.plans[number] = (again.only(one.numbers) if one.whole else again).holding(tensors)
            job.outcomes[part.files[number][0]] = outcomes
