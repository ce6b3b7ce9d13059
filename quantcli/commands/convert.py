"""`quantcli convert`: one model in, one or several GGUF files out, from a single read of the source.

`prepare` does everything that can fail cheaply (names, plans, importance, targets), `describe` is the dry run,
`execute` does the work. The result is the JSON object of the command.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantcli import __version__, loader
from quantcli.container import string
from quantcli.encode import pipeline
from quantcli.errors import MissingFile, NoKernel, OutputExists, OutputFailed, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.methods import plain
from quantcli.methods.seam import Settings, Statistics
from quantcli.methods.table import Choice
from quantcli.model import Model
from quantcli.output import checksums, writer
from quantcli.plan import overrides, plan, recipes, shards
from quantcli.plan.options import Options
from quantcli.plan.plan import Plan
from quantcli.sources.files import allow_open_files
from quantcli.statistics import imatrix

TEMPLATE_LIMIT = 4 << 20  # bytes of a chat template file
MOST_THREADS = 256  # each holds slabs in memory; beyond this it is a typing error
AUTOMATIC = Path("auto")  # --imatrix auto: collect one first
COLLECTED = "imatrix.gguf"  # its name, beside the output


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for, as the command line gives it (texts unparsed)."""

    source: Path
    types: Sequence[str]
    output: Path | None = None
    into_folder: bool = False  # `-o name/`: a folder, whether it is there yet or not
    imatrix: Path | None = None
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    tensor_types: tuple[str, ...] = ()
    tensor_type_file: Path | None = None
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    leave_output_tensor: bool = False
    pure: bool = False
    allow_requantize: bool = False
    search: str | None = None
    method: str | None = None
    threads: int | None = None
    dry_run: bool = False
    force: bool = False
    split_max_size: str | None = None
    keep_split: bool = False
    metadata: tuple[str, ...] = ()
    chat_template: Path | None = None
    allow_no_imatrix: bool = False
    architecture: str | None = None
    pre_tokenizer: str | None = None
    checksums: Path | None = None


@dataclass
class Job:
    """A request that is known to be possible: the model, and per type its plan and its files."""

    request: Request
    model: Model
    plans: list[Plan]
    targets: list[Path]  # one per plan; shards get numbers
    threads: int
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[list[Path]]:
        """The files of every plan."""
        return [shards.file_names(path, len(one.shards)) for path, one in zip(self.targets, self.plans, strict=True)]

    @property
    def total_bytes(self) -> int:
        """Bytes of the source's tensors."""
        return sum(tensor_types.tensor_bytes(t.stored, t.shape) for t in self.model.tensors)


def convert(request: Request, progress: pipeline.Progress | None = None) -> dict[str, Any]:
    """`calibrated`, `prepare`, then `describe` for a dry run or `execute`. Raises QuantcliError."""
    job = prepare(calibrated(request))
    try:
        return describe(job) if request.dry_run else execute(job, progress)
    finally:
        job.model.close()


def calibrated(request: Request, progress: Callable[[str, int], Any] | None = None) -> Request:
    """With `--imatrix auto` the request that uses a matrix collected from the bundled text, kept beside the output.

    Everything else about the request is checked first: collecting takes minutes. A dry run collects nothing.
    """
    if request.imatrix != AUTOMATIC or request.dry_run:
        return request
    from quantcli.commands import imatrix

    prepare(replace(request, imatrix=None, allow_no_imatrix=True)).model.close()
    output = request.output
    folder = Path() if output is None else output if _is_folder(request) else output.parent
    matrix = folder / COLLECTED
    try:
        imatrix.run(imatrix.Request(model=request.source, output=matrix, force=request.force), progress)
    except OutputExists as error:
        raise OutputExists(
            error.message, where=error.where, hint=f"use it with --imatrix {matrix}, or replace it with --force"
        ) from None
    return replace(request, imatrix=matrix)


# ---- before the work


def prepare(request: Request) -> Job:
    """Parse, open, plan and check. Nothing is written; whatever is wrong shows here. Raises QuantcliError."""
    file_types = _file_types(request.types)
    if request.search is not None and request.search not in kernels.SEARCHES:
        raise UsageError(
            f"there is no search {request.search!r}", where="--search", hint=f"known: {', '.join(kernels.SEARCHES)}"
        )
    choice = Choice(request.method, Settings(request.search))
    options = _options(request)
    allow_open_files()
    model = loader.open_model(
        request.source,
        architecture=request.architecture,
        pre_tokenizer=request.pre_tokenizer,
        chat_template=_template(request.chat_template),
    )
    try:
        plans = [plan.make(model, Options(row, provenance=_provenance(request, row), **options)) for row in file_types]
        for one in plans:
            one.check(
                writing=not request.dry_run,
                allow_no_imatrix=request.allow_no_imatrix,
                allow_requantize=request.allow_requantize,
            )
        threads = min(request.threads or pipeline.default_threads(), MOST_THREADS)
        job = Job(request, model, plans, _targets(request, model, plans), threads)
        job.notes = list(dict.fromkeys([*model.notes, *(note for one in plans for note in one.notes)]))
        job.warnings = _importance_warnings(plans) + _method_warnings(plans, choice)
        if not request.dry_run:
            _check_kernels(plans, request)
            _check_targets(job)
        return job
    except BaseException:
        model.close()
        raise


def _file_types(names: Sequence[str]) -> list[recipes.FileType]:
    if not names:
        raise UsageError("no type given", hint="say -t Q4_K_M, for example; `quantcli formats` lists the types")
    return list({row.name: row for row in map(recipes.parse, names)}.values())


def _options(request: Request) -> dict[str, Any]:
    """The part of plan.Options that is the same for every type."""
    rules = [overrides.parse(text) for text in request.tensor_types]
    if request.tensor_type_file is not None:
        rules += overrides.parse_file(request.tensor_type_file)

    def one_type(text: str | None, option: str) -> tensor_types.TensorType | None:
        return None if text is None else overrides.parse_tensor_type(text, option)

    importance = None
    if request.imatrix is not None and request.imatrix != AUTOMATIC:
        importance = imatrix.read(request.imatrix).filtered(request.include_weights, request.exclude_weights)
    elif request.imatrix is None and (request.include_weights or request.exclude_weights):
        raise UsageError(
            "--include-weights and --exclude-weights select from an importance matrix",
            hint="give one with --imatrix FILE",
        )
    return {
        "pure": request.pure,
        "overrides": tuple(rules),
        "output_tensor_type": one_type(request.output_tensor_type, "--output-tensor-type"),
        "token_embedding_type": one_type(request.token_embedding_type, "--token-embedding-type"),
        "leave_output_tensor": request.leave_output_tensor,
        "importance": importance,
        "imatrix": request.imatrix == AUTOMATIC,
        "keep_split": request.keep_split,
        "split_max_size": overrides.parse_size(request.split_max_size) if request.split_max_size else None,
        "metadata": tuple(overrides.parse_setting(text) for text in request.metadata),
    }


def _provenance(request: Request, row: recipes.FileType) -> dict[str, Any]:
    """How the file was made: enough to make it again, nothing about the machine or the time."""
    made = {"quantcli.version": string(__version__)}
    if not row.is_float and not row.copies:
        made["quantcli.search"] = string(request.search or plain.DEFAULT_SEARCH)
        if request.method is not None:
            made["quantcli.method"] = string(request.method)
    return made


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            raw = file.read(TEMPLATE_LIMIT + 1)
        if len(raw) > TEMPLATE_LIMIT:
            raise UsageError("too large for a chat template", where=str(path))
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be read", where=str(path)) from error


def _importance_warnings(plans: Sequence[Plan]) -> list[str]:
    found: list[str] = []
    for one in plans:
        importance = one.options.importance
        if importance is None:
            continue
        missing = imatrix.missing(importance, one.entries)
        found += importance.warnings  # looking entries up may have added one
        if missing:
            found.append(
                f"{one.file_type.name}: {len(missing)} tensors are not in the importance matrix and are quantized "
                f"without ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})"
            )
    return list(dict.fromkeys(found))


def _method_warnings(plans: Sequence[Plan], choice: Choice) -> list[str]:
    """Never silent: what the named method does not take."""
    found = []
    for one in plans:
        for (type_name, used), count in _method_fallbacks(one, choice).items():
            tensors = f"{count} tensors" if count > 1 else "1 tensor"
            found.append(f"{one.file_type.name}: method {choice.name} does not take {tensors} of {type_name}: {used} does")
    return found


def _method_fallbacks(one: Plan, choice: Choice) -> Counter[tuple[str, str]]:
    planned = ((entry.tensor, entry.type) for entry in one.entries)
    return choice.fallbacks(planned, Statistics(one.options.importance))


def _check_kernels(plans: Sequence[Plan], request: Request) -> None:
    kernels.isa()  # a QUANTCLI_SIMD that names nothing usable is an error before any work
    for one in plans:
        for entry in one.entries:
            copied = entry.tensor.raw and entry.type is entry.tensor.stored
            if not copied and not kernels.can_encode(entry.type.id, plain.search_for(entry.type, request.search)):
                raise NoKernel(
                    f"this build cannot encode {entry.type.name} ({one.file_type.name} needs it)",
                    where=f"tensor {entry.tensor.name}",
                    hint="`quantcli formats` shows which types can be written; a dry run plans all of them",
                )
            if not copied and not kernels.can_decode(entry.tensor.stored.id):
                raise NoKernel(f"this build cannot decode {entry.tensor.stored.name}", where=entry.tensor.origin)


# ---- names of the outputs


def _targets(request: Request, model: Model, plans: Sequence[Plan]) -> list[Path]:
    names = [f"{model.name}-{one.file_type.name}.gguf" for one in plans]
    output = request.output
    if output is None:
        return [Path(name) for name in names]
    if _is_folder(request):
        return [output / name for name in names]
    if len(plans) > 1:
        raise UsageError(
            "with several types the output is a folder, not a file", where=str(output), hint="give a folder with -o"
        )
    return [output]


def _is_folder(request: Request) -> bool:
    output = request.output
    if output is None or output.is_dir():
        return output is not None
    return not output.exists() and (request.into_folder or len(request.types) > 1 and output.suffix.lower() != ".gguf")


def _check_targets(job: Job) -> None:
    request = job.request
    if _is_folder(request) and not request.output.exists():
        _make_folder(request.output)
    inputs = [
        *job.model.files,
        *(str(p) for p in (request.imatrix, request.tensor_type_file, request.chat_template) if p),
    ]
    targets = [path for files in job.files for path in files]
    writer.check_targets(targets, inputs, force=request.force)
    if request.checksums is not None:
        writer.check_targets([request.checksums], inputs, force=True)
        if os.path.realpath(request.checksums) in map(os.path.realpath, targets):
            raise UsageError("an output has the same name", where="--checksums")
        if request.checksums.exists():
            checksums.Checksums(request.checksums)  # whatever else this file is, nothing is added to it


def _make_folder(path: Path) -> None:
    try:
        path.mkdir()
    except OSError as error:
        raise OutputFailed(
            error.strerror or "cannot be created", where=str(path), hint="choose another folder with -o"
        ) from error


# ---- the work


def execute(job: Job, progress: pipeline.Progress | None = None) -> dict[str, Any]:
    """Write every file of the job; returns the result with hashes. Files appear together, when all are complete."""
    start = time.monotonic()
    for folder in {path.parent for files in job.files for path in files}:
        writer.clean_stale(folder)
    outputs: list[list[writer.OutputFile]] = [[] for _ in job.plans]
    try:
        for one, files, made in zip(job.plans, job.files, outputs, strict=True):
            for path, shard in zip(files, one.shards, strict=True):
                made.append(writer.OutputFile(path, shard.file_bytes, force=job.request.force))
        group = pipeline.Group(job.plans, outputs)
        weights, reading = pipeline.run(
            [group], threads=job.threads, search=job.request.search, method=job.request.method, progress=progress
        )
        for made in outputs:
            for file in made:
                file.finish()
        for made in outputs:
            for file in made:
                file.publish()
    finally:
        for made in outputs:
            for file in made:
                file.discard()
    if job.request.checksums is not None:
        checksums.add(job.request.checksums, {file.path: file.sha256 for made in outputs for file in made})
    seconds = time.monotonic() - start
    result = describe(job)
    for entry, made in zip(result["outputs"], outputs, strict=True):
        entry["sha256"] = made[0].sha256 if len(made) == 1 else None
        entry["shards"] = [{"path": str(f.path), "bytes": f.size, "sha256": f.sha256} for f in made]
    return result | {
        "seconds": round(seconds, 3),
        "reading_seconds": round(reading, 3),
        "weights_per_second": round(weights / max(seconds, 1e-9)),
    }


def describe(job: Job) -> dict[str, Any]:
    """The result of a dry run: the plan of every output, exact to the byte, from headers alone."""
    outputs = []
    choice = Choice(job.request.method, Settings(job.request.search))
    for one, files, target in zip(job.plans, job.files, job.targets, strict=True):
        path = str(target if len(files) == 1 else files[0])
        outputs.append({"path": path, "files": [str(f) for f in files]} | plan.to_json(one))
        if choice.name is not None:
            outputs[-1]["method"] = choice.name
            outputs[-1]["method_fallbacks"] = [
                {"type": type_name, "method": used, "tensors": count}
                for (type_name, used), count in _method_fallbacks(one, choice).items()
            ]
    model = job.model
    source = {
        "path": str(job.request.source),
        "name": model.name,
        "kind": model.kind,
        "architecture": model.architecture,
        "tensors": len(model.tensors),
        "bytes": job.total_bytes,
    }
    return {
        "schema": 1,
        "source": source,
        "outputs": outputs,
        "seconds": 0.0,
        "threads": job.threads,
        "search": job.request.search or plain.DEFAULT_SEARCH,
        "notes": job.notes,
        "warnings": job.warnings,
    }
