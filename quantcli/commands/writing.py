"""The work of a conversion: every file of a job, filled in one pass, published together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from quantcli.commands import hashing, provenance, resuming
from quantcli.commands.describing import describe
from quantcli.commands.job import Job
from quantcli.encode import pipeline
from quantcli.ggml import tensor_types
from quantcli.methods.snap import Snapping
from quantcli.output import journals, transaction, writer
from quantcli.output.journal import Journal
from quantcli.output.resumable import ResumableFile
from quantcli.output.writer import OutputFile
from quantcli.plan import costs, together
from quantcli.plan.shards import PlannedTensor
from quantcli.report.terminal import Advance, Reporter

if TYPE_CHECKING:
    from quantcli.report.results import CarriedTensor, ConvertResult

Outputs = list[list[OutputFile]]  # per plan its files


def execute(
    job: Job, advance: Advance | None = None, start: float | None = None, reporter: Reporter | None = None
) -> ConvertResult:
    """Write every file of the job; returns the result with hashes. Files appear together, when all are complete.

    ``start``: when the work began, on the monotonic clock; None: now. ``reporter`` shows the progress, where no
    ``advance`` is told of it.
    """
    start = time.monotonic() if start is None else start
    outputs: Outputs = [[] for _ in job.plans]
    kept = resuming.begin(job, reporter) if job.request.resume else None
    try:
        _clean(job)
        _create(job, outputs, kept)
        resumed = 0 if kept is None else resuming.continue_from_disk(outputs, job.threads, reporter)
        weights, reading = _fill_hashing(job, outputs, advance, reporter)
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(OutputFile.finish, chain.from_iterable(outputs)))
        for part in job.parts:
            part.model.check_unchanged()
        if kept is not None:
            kept.note_complete()
        transaction.publish(outputs, job.request.checksums)
        _forget(job, kept)
    finally:
        for made in outputs:
            for file in made:
                file.discard()
        if kept is not None:
            kept.close()
    seconds = time.monotonic() - start
    result = describe(job)
    for entry, made in zip(result["outputs"], outputs, strict=True):
        entry["sha256"] = made[0].sha256 if len(made) == 1 else None
        entry["shards"] = [{"path": str(f.path), "bytes": f.size, "sha256": f.sha256} for f in made]
    if kept is not None:
        result["resumed_bytes"] = resumed
    result["seconds"] = round(seconds, 3)
    result["reading_seconds"] = round(reading, 3)
    result["weights_per_second"] = round(weights / max(seconds, 1e-9))
    return result


def _clean(job: Job) -> None:
    """Remove what killed runs have left in the folders of the outputs."""
    for folder in {path.parent for files in job.files for path in files}:
        writer.clean_stale(folder)
        journals.clean_orphans(folder)


def _create(job: Job, outputs: Outputs, kept: Journal | None) -> None:
    """A file for every shard of every plan, put into ``outputs`` at once: the caller discards them."""
    number = 0
    unhashed = bool(hashing.unknown(job))
    for one, paths, made in zip(job.plans, job.files, outputs, strict=True):
        first = hashing.first_shard(one) if unhashed else None
        for place, (path, shard) in enumerate(zip(paths, one.shards, strict=True)):
            size, force = shard.file_bytes, job.request.force
            if kept is None:
                made.append(OutputFile(path, size, force=force, late=place == first))
            else:
                made.append(ResumableFile(path, size, kept, number, force=force))
            number += 1


def _forget(job: Job, kept: Journal | None) -> None:
    """Everything has its name: nothing is left to resume, of this run or of those that began the same files."""
    if kept is not None:
        kept.remove()
    journals.forget([path for files in job.files for path in files])


@contextmanager
def _progress(
    job: Job, advance: Advance | None, reporter: Reporter | None, outputs: Outputs
) -> Iterator[Advance | None]:
    if advance is not None or reporter is None:
        yield advance
        return
    written, size = (sum(pair) for pair in zip(*((f.written, f.size) for made in outputs for f in made), strict=True))
    begun = job.total_bytes * written // max(size, 1)
    share = costs.share_done(_work(job))
    with reporter.progress(f"convert {job.parts[0].model.name}", job.total_bytes, begun, share) as told:
        yield told


def _fill_hashing(job: Job, outputs: Outputs, advance: Advance | None, reporter: Reporter | None) -> tuple[int, float]:
    """`_fill`, while the sources are hashed where their hashes are not known; then the headers that tell them."""
    paths = hashing.unknown(job)
    if not paths:
        with _progress(job, advance, reporter, outputs) as told:
            return _fill(job, outputs, told)
    with hashing.Hashing(paths, job.threads, alone=job.request.part is not None) as hashes:
        heads = _Heads(job, outputs)
        with _progress(job, advance, reporter, outputs) as told:

            def both(done_bytes: int, weights: int = 0) -> None:
                hashes.read(done_bytes)
                if hashes.complete and not heads.told:
                    heads.tell(hashes.finish(reporter))
                if told is not None:
                    told(done_bytes, weights)

            done = _fill(job, outputs, both)
        if not heads.told:
            heads.tell(hashes.finish(reporter))
    return done


class _Heads:
    """The headers that tell the hashes of the sources. With them the outputs can be hashed."""

    def __init__(self, job: Job, outputs: Outputs) -> None:
        self.job, self.outputs, self.told = job, outputs, False

    def tell(self, found: Mapping[str, str]) -> None:
        """Path -> sha256, once: into the first shards, the beginnings of which are written."""
        self.told = True
        provenance.note(self.job, found)
        for one, made in zip(self.job.plans, self.outputs, strict=True):
            first = hashing.first_shard(one)
            if first is not None:
                shard = one.shards[first]
                metadata = provenance.with_hashes(shard.metadata, one.model)
                made[first].replace_head(replace(shard, metadata=metadata).header())


def _work(job: Job) -> Iterator[tuple[int, int]]:
    """(bytes, cost) of what is read, in its order."""
    for numbers in together.groups(job.plans):
        found = together.order([job.plans[number] for number in numbers])
        assert found is not None
        for tensor, *made in zip(found.tensors, *found.entries, strict=True):
            yield (
                tensor_types.tensor_bytes(tensor.stored, tensor.shape),
                sum(costs.cost(tensor, entry.type) for entry in made if entry is not None),
            )


def _fill(job: Job, outputs: Sequence[Sequence[OutputFile]], advance: Advance | None) -> tuple[int, float]:
    """(weights encoded, seconds of reading): one group of outputs per model."""
    shared = together.groups(job.plans)
    groups = [
        pipeline.Group([job.plans[number] for number in numbers], [outputs[number] for number in numbers])
        for numbers in shared
    ]
    choice, snap = job.request.choice, Snapping(job.request.snap)
    done = pipeline.run(
        groups,
        threads=job.threads,
        search=choice.settings.search,
        method=choice.name,
        progress=advance,
        snap=snap,
        cancel=job.close if job.far else None,
    )
    for group, numbers in enumerate(shared):
        for number, entries in zip(numbers, groups[group].order.entries, strict=True):
            job.carried[job.files[number][0]] = _carried(snap, group, entries)
    return done


def _carried(snap: Snapping, group: int, entries: Sequence[PlannedTensor | None]) -> list[CarriedTensor]:
    """What of a plan's tensors was carried over."""
    found: list[CarriedTensor] = []
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        count = snap.carried.get((group, index, entry.type.id))
        if count is not None and count.carried:
            name, kind = entry.tensor.name, entry.type.name
            found.append(
                {"name": name, "type": kind, "blocks": count.blocks, "carried": count.carried, "exact": count.exact}
            )
    return found
