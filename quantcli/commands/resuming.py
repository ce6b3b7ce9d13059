"""`convert --resume`: what earlier runs have left, what goes on with it, and what is told of it."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from quantcli.commands import facts
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import UsageError
from quantcli.output import journals
from quantcli.output.journal import Journal, compare, same_command, told
from quantcli.output.journals import OF_VERSION, VERSION, Contents
from quantcli.output.resumable import ResumableFile
from quantcli.output.writer import OutputFile
from quantcli.report.terminal import Reporter, size
from quantcli.sources.gguf import is_hash
from quantcli.sources.hub import address as hub


def check(request: ConvertRequest) -> None:
    """Raises UsageError for what repeats hours of work on every start."""
    wish = request.wish
    if not request.resume or wish is None or not wish.encodes:
        return
    if wish.keep is None and wish.statistics is None:
        raise UsageError(
            f"--quality {wish.quality} calibrates anew on every start",
            where="--resume",
            hint="add --keep-statistics DIR: calibration is resumed from it as well",
        )


def unfinished(job: Job) -> Contents | None:
    """What a run that can be resumed has left of these files; of several runs the one that made the same files."""
    return next(iter(journals.about(_paths(job))), None)


def _paths(job: Job) -> list[Path]:
    return [path for files in job.files for path in files]


def begin(job: Job, reporter: Reporter | None = None) -> Journal:
    """The journal of this run, or of the earlier one that it goes on with. Raises ResumeRefused, OutputFailed."""
    sizes = [shard.file_bytes for one in job.plans for shard in one.shards]
    now = facts.of(job)
    kept = Journal(_paths(job), sizes, now, partial(_way, job.request, now))
    if kept.replaced and reporter is not None:
        reporter.warning(f"{kept.path}: what lay here is no journal that can be read; everything is made anew")
    return kept


def _way(request: ConvertRequest, now: Mapping[str, str], earlier: Mapping[str, str]) -> str:
    """What goes on with an earlier run, where it is another one."""
    commit, address = earlier.get(facts.COMMIT, ""), hub.parse(request.source)
    if address is None or commit == now.get(facts.COMMIT) or not is_hash(commit):
        return same_command(earlier)
    return (
        f"go on with the commit that it is of: give {shlex.quote(str(address._replace(revision=commit)))} as the source"
    )


def recall(job: Job) -> bool:
    """Take what the weights' files hash to from the journal, where they look as they did; whether there was any."""
    earlier = unfinished(job) if job.request.resume else None
    if earlier is None:
        return False
    found = False
    for part in job.parts:
        looks = {name: look for handle in part.model.handles for name, look in handle.identities().items()}
        for path in part.model.weight_files:
            name, digest = os.path.basename(path), earlier.facts.get(facts.hash_of(path))
            same = name in looks and earlier.facts.get(f"{name} of the source") == looks[name]
            if digest is not None and same and path not in part.model.digests:
                part.model.digests[path], found = digest, True
    return found


def continue_from_disk(outputs: Sequence[Sequence[OutputFile]], threads: int, reporter: Reporter | None) -> int:
    """Hash what an earlier run has left, several files at a time; returns the bytes that are gone on with."""
    files = [file for made in outputs for file in made if isinstance(file, ResumableFile)]
    there = sum(marks[-1][0] for file in files if (marks := file.journal.marks[file.number]))
    if not there:
        return 0
    lock, done = threading.Lock(), 0
    progress = nullcontext(None) if reporter is None else reporter.progress("check what is there", there)
    with progress as advance, ThreadPoolExecutor(max(threads, 1)) as pool:

        def told(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                if advance is not None:
                    advance(done)

        for future in [pool.submit(file.continue_from_disk, told) for file in files]:
            future.result()
    kept = sum(file.written for file in files)
    if reporter is not None:
        total = sum(file.size for file in files)
        reporter.note(f"note: resumes behind {size(kept)} of {size(total)} that an earlier run has written")
    return kept


def tell(job: Job, reporter: Reporter) -> None:
    """What other runs have left of these files, or are making of them, where this one was not asked to go on."""
    for earlier in journals.about(_paths(job)):
        reporter.warning(_of_other(earlier, job))
    broken = journals.unreadable(_paths(job))
    if broken is not None:
        reporter.warning(f"{broken}: is no journal that can be read; --resume would make everything anew")


def _of_other(earlier: Contents, job: Job) -> str:
    if earlier.at_work:
        return (
            f"another run, with --resume, is at work on {earlier.shown}: of the two the one that is complete last is "
            "refused; wait for it, or end one of them"
        )
    now = {OF_VERSION: str(VERSION), **facts.of(job)}
    differences = compare(*facts.before_work(earlier.facts, now, calibrates=job.request.wish is not None))
    goes_on = f"--resume would not continue it ({told(differences)})" if differences else "--resume would continue it"
    return (
        f"an unfinished conversion of {earlier.shown} lies here, {size(earlier.written)} of "
        f"{size(sum(earlier.sizes))}: {goes_on}; it is removed when this one is complete"
    )
