"""`convert --engine`: every shard is a part that some worker makes, as `convert --part` makes it on its own.

Everything is checked here first, and nothing is hashed; a worker plans anew and comes to the same plan. It keeps that,
and what it has read for it (headers, vocabulary, importance matrix), for its other parts of the same run. The part of a
lost worker is made again elsewhere: what it has left unfinished is removed by who writes into its folder next.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantcli import __version__
from quantcli.commands import convert, parting
from quantcli.commands.describing import describe
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import EngineFailed, Interrupted, UsageError
from quantcli.output import checksums
from quantcli.plan import division
from quantcli.plan.division import Division
from quantcli.report import tables
from quantcli.report.terminal import SILENT, Reporter

if TYPE_CHECKING:
    from quantcli.report.results import ConvertResult, ShardResult

WHERE = "--engine"


def run(request: ConvertRequest, engine: str | None, reporter: Reporter = SILENT) -> ConvertResult:
    """`convert.run`, in parts where there is an ``engine``. Raises QuantcliError."""
    if engine is None:
        return convert.run(request, reporter)
    check(request)
    if request.dry_run:
        return convert.run(request, reporter)
    job = convert.prepare(request, hashed=False)
    try:
        if job.far:
            raise UsageError(
                "workers read files under their own paths, not from the hub",
                where=WHERE,
                hint="download the checkpoint first, or run --part 1/N to N/N on the machines",
            )
        for text in job.notes:
            reporter.note(f"note: {text}")
        for text in job.warnings:
            reporter.warning(text)
        start = time.monotonic()
        shards = _made(job, engine, reporter)
        result = _result(job, shards, time.monotonic() - start)
    finally:
        job.close()
    if request.checksums is not None:
        checksums.add(request.checksums, {path: shard["sha256"] for path, shard in shards.items()})
    tables.show_conversion(reporter, result, tensors=False)
    return result


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
    if request.skip_existing:
        return convert.run(request, SILENT)
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


def _made(job: Job, engine: str, reporter: Reporter) -> dict[Path, ShardResult]:
    """Every shard that the workers have written, by its path."""
    from quantcli.engines import open_engine  # those who make a part need none

    paths = [path for files in job.files for path in files]
    size = sum(shard.file_bytes for one in job.plans for shard in one.shards)
    found: dict[Path, ShardResult] = {}
    run = os.urandom(8).hex()
    parts = [(one, __version__, run) for one in _requests(job.request, division.most_parts(job.plans))]
    name = job.parts[0].model.name
    with closing(open_engine(engine)) as opened, reporter.progress(f"convert {name}", size) as advance:
        results = opened.results(make, parts, reporter.note)
        try:
            for _, result in results:
                for output in result["outputs"]:
                    found |= {Path(shard["path"]): shard for shard in output["shards"]}
                advance(sum(shard["bytes"] for shard in found.values()))
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted; {len(found)} of {len(paths)} files are complete",
                hint="the same command with --force makes all of them anew",
            ) from error
        finally:
            results.close()  # type: ignore[attr-defined]  # engines give generators
    return {path: found[path.absolute()] for path in paths}


def _requests(request: ConvertRequest, count: int) -> list[ConvertRequest]:
    """The part of each worker, with paths that mean the same in its own folder. Outputs were checked already: what is
    there now is another try of the same part."""
    whole = _absolute(replace(request, force=True, checksums=None, strict=False))
    return [replace(whole, part=Division(number, count)) for number in range(1, count + 1)]


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
