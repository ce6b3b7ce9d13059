"""`convert --engine`: every shard is a part that some worker makes, as `convert --part` makes it on its own.

Everything is checked here first, and nothing is hashed; a worker plans anew and comes to the same plan. It keeps that,
and what it has read for it (headers, vocabulary, importance matrix), for its other parts of the same run. The part of a
lost worker is made again elsewhere: what it has left unfinished is removed by who writes into its folder next.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantcli import __version__, engines
from quantcli.commands import convert, parting, targets
from quantcli.commands.describing import describe
from quantcli.commands.job import ConvertRequest, Job, Part
from quantcli.errors import EngineFailed, Interrupted, UsageError
from quantcli.output import checksums
from quantcli.plan import division
from quantcli.plan.division import Division
from quantcli.report import tables
from quantcli.report.terminal import SILENT, Reporter

if TYPE_CHECKING:
    from quantcli.report.results import ConvertResult, ShardResult

WHERE = engines.WHERE


def run(request: ConvertRequest, engine: str | None, reporter: Reporter = SILENT) -> ConvertResult:
    """`convert.run`, in parts where there is an ``engine``. Raises QuantcliError."""
    if engine is None:
        return convert.run(request, reporter)
    check(request)
    if request.dry_run:
        return convert.run(request, reporter)
    if request.skip_existing:  # shard by shard, as a part does it
        left, nothing = convert.without_existing(replace(request, part=Division(1, 1)), reporter)
        if nothing is not None:
            return nothing
        request = replace(left, part=None)
    with targets.no_empty_folder(request.output):
        opened = convert.open_sources(request)
        try:
            result = _converted(request, opened, engine, reporter)
        finally:
            opened.close()
    tables.show_conversion(reporter, result, tensors=False)
    return result


def _converted(request: ConvertRequest, opened: convert.Opened, engine: str, reporter: Reporter) -> ConvertResult:
    job = convert.prepare_opened(request, opened, hashed=False)
    if job.far:
        raise engines.near_only("download the checkpoint first, or run --part 1/N to N/N on the machines")
    for text in job.notes:
        reporter.note(f"note: {text}")
    for text in job.warnings:
        reporter.warning(text)
    start = time.monotonic()
    shards = _made(job, opened.whole.made, engine, reporter)
    if request.checksums is not None:
        checksums.add(request.checksums, {path: shard["sha256"] for path, shard in shards.items()})
    return _result(job, shards, time.monotonic() - start)


def check(request: ConvertRequest) -> None:
    """Raises UsageError for what cannot be made in parts."""
    if request.part is not None:
        raise UsageError("--part is one part, --engine makes all of them", hint="leave out one of the two")
    if request.resume:
        raise UsageError(
            "parts of an engine are not resumed", where=WHERE, hint="leave out --resume, or run --part ... --resume"
        )
    try:
        parting.check(replace(request, part=Division(1, 1)))
    except UsageError as error:
        raise UsageError(error.message, where=WHERE, hint=error.hint) from None


def make(request: ConvertRequest, version: str, run: str = "") -> ConvertResult:
    """One part of the ``run``: the task of a worker. Raises EngineFailed where it has another quantcli, and what
    `convert` does."""
    if version != __version__:
        hint = f"install quantcli {version} on every worker"
        raise EngineFailed(f"a worker has quantcli {__version__}, this is {version}", where=WHERE, hint=hint)
    opened = _taken(run) or convert.open_sources(request)
    try:
        job = convert.prepare_opened(request, opened)
        result = convert.carry_out(job)
    except BaseException:
        opened.close()
        raise
    _keep(run, opened)
    return result


_kept: list[tuple[str, convert.Opened]] = []  # by run; a worker's threads take what they use out of it
_turn = threading.Lock()


def _taken(run: str) -> convert.Opened | None:
    """What this process has opened for the run and nobody uses now; that of earlier runs is closed."""
    with _turn:
        for earlier, opened in [one for one in _kept if one[0] != run]:
            opened.close()
            _kept.remove((earlier, opened))
        return _kept.pop()[1] if _kept else None


def _keep(run: str, opened: convert.Opened) -> None:
    with _turn:
        _kept.append((run, opened))


def _made(job: Job, whole: Sequence[Part], engine: str, reporter: Reporter) -> dict[Path, ShardResult]:
    """Every shard that the workers have written, by its path. ``whole``: what is divided among them."""
    paths = [path for files in job.files for path in files]
    size = sum(shard.file_bytes for one in job.plans for shard in one.shards)
    found: dict[Path, ShardResult] = {}
    run = os.urandom(8).hex()
    parts = [(one, __version__, run) for one in _requests(job.request, whole)]
    name = job.parts[0].model.name
    with closing(engines.open_engine(engine)) as opened, reporter.progress(f"convert {name}", size) as advance:
        results = opened.results(make, parts, reporter.note)
        try:
            for _, result in results:
                for output in result["outputs"]:
                    found |= {Path(shard["path"]): shard for shard in output["shards"]}
                advance(sum(shard["bytes"] for shard in found.values()))
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted; {len(found)} of {len(paths)} files are complete",
                hint="the same command with --skip-existing makes the others",
            ) from error
        finally:
            results.close()  # type: ignore[attr-defined]  # engines give generators
    return {path: found[path.absolute()] for path in paths}


def _requests(request: ConvertRequest, whole: Sequence[Part]) -> list[ConvertRequest]:
    """The part of each worker that has something to make, with paths that mean the same in its own folder. Outputs were
    checked already: what is there now is kept, or another try of the same part."""
    plans, files = [one for part in whole for one in part.plans], [paths for part in whole for paths in part.files]
    count = division.most_parts(plans)
    asked = _absolute(replace(request, force=True, checksums=None, strict=False, kept=frozenset()))
    found = []
    for number, own in enumerate(division.divide(plans, count), 1):
        paths = {files[one][shard] for one, shard in own}
        kept = paths & request.kept
        if paths != kept:
            absolute = frozenset(path.absolute() for path in kept)
            found.append(replace(asked, part=Division(number, count), kept=absolute))
    return found


def _absolute(request: ConvertRequest) -> ConvertRequest:
    changed: dict[str, Any] = {name: one.absolute() for name, one in vars(request).items() if isinstance(one, Path)}
    if request.output is None:
        changed |= {"output": Path.cwd(), "into_folder": True}
    if request.wish is not None and request.wish.statistics is not None:
        changed["wish"] = replace(request.wish, statistics=request.wish.statistics.absolute())
    return replace(request, **changed)


def _result(job: Job, shards: dict[Path, ShardResult], seconds: float) -> ConvertResult:
    """As the conversion in one process has it."""
    result = describe(job)
    for entry, files in zip(result["outputs"], job.files, strict=True):
        made = [shards[path] for path in files]
        entry["sha256"] = made[0]["sha256"] if len(made) == 1 else None
        entry["shards"] = [{**shard, "path": str(path)} for path, shard in zip(files, made, strict=True)]
    result["seconds"] = round(seconds, 3)
    return result
