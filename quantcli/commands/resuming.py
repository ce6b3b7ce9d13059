"""`convert --resume`: what a run says of itself in its journal, and what an earlier one has left."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy

from quantcli import __version__
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import UsageError
from quantcli.output import journal
from quantcli.output.journal import Contents, Journal
from quantcli.output.resumable import ResumableFile
from quantcli.output.writer import OutputFile
from quantcli.plan.plan import Plan
from quantcli.report.terminal import Reporter, size
from quantcli.statistics.imatrix import Importance


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
    """What a run that can be resumed has left of these files."""
    return journal.find([path for files in job.files for path in files])


def begin(job: Job) -> Journal:
    """The journal of this run, or of the earlier one that it goes on with. Raises ResumeRefused, OutputFailed."""
    paths = [path for files in job.files for path in files]
    sizes = [shard.file_bytes for one in job.plans for shard in one.shards]
    return Journal(paths, sizes, facts(job))


def facts(job: Job) -> dict[str, str]:
    """What must be the same for a run to go on: what it is called -> what it is, in words where people compare it."""
    request = job.request
    found = {"the version of quantcli": __version__}
    for part in job.parts:
        for handle in part.model.handles:
            found |= {f"{name} of the source": looks for name, looks in handle.identities().items()}
        for path, digest in part.model.digests.items():
            found[_hash_of(path)] = digest
    for one, paths in zip(job.plans, job.files, strict=True):
        found[f"the type of {paths[0].name}"] = f"{one.file_type.name}, {len(paths)} files, {one.file_bytes} bytes"
    found["the search"] = request.search
    found["the method"] = request.choice.name or "the search"
    found["--snap"] = request.snap
    for matrix in {id(one.options.importance): one.options.importance for one in job.plans}.values():
        if matrix is not None:
            found["the importance matrix"] = _digest(matrix)
    for one, paths in zip(job.plans, job.files, strict=True):
        found[f"the plan of {paths[0].name}"] = plan_digest(one)
    return found


def _hash_of(path: str) -> str:
    return f"the sha256 of {os.path.basename(path)}"


def recall(job: Job) -> bool:
    """Take what the weights' files hash to from the journal, where they look as they did; whether there was any."""
    earlier = unfinished(job) if job.request.resume else None
    if earlier is None:
        return False
    found = False
    for part in job.parts:
        looks = {name: look for handle in part.model.handles for name, look in handle.identities().items()}
        for path in part.model.weight_files:
            name, digest = os.path.basename(path), earlier.facts.get(_hash_of(path))
            same = name in looks and earlier.facts.get(f"{name} of the source") == looks[name]
            if digest is not None and same and path not in part.model.digests:
                part.model.digests[path], found = digest, True
    return found


def plan_digest(one: Plan) -> str:
    """sha256 of all headers that the plan writes: metadata, names, shapes, types, offsets."""
    digest = hashlib.sha256()
    for shard in one.shards:
        digest.update(shard.header())
    return digest.hexdigest()


def _digest(matrix: Importance) -> str:
    """Of what was read: a part looks at the values of its own entries alone."""
    digest = hashlib.sha256()
    for name in sorted(matrix.sums):
        digest.update(name.encode())
        for read in (matrix.sums[name], matrix.counts[name]):
            digest.update(numpy.ascontiguousarray(read).data)
    return digest.hexdigest()


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
    """That another run could be resumed, where this one was not asked to."""
    earlier = unfinished(job)
    if earlier is not None:
        reporter.warning(
            f"an unfinished conversion of {earlier.names[0]} lies here, {size(earlier.written)} of "
            f"{size(sum(earlier.sizes))}: --resume would continue it; it is removed when this one is complete"
        )
