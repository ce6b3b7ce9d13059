"""`convert --skip-existing`: outputs that are there are kept, the others are made.

What is there is left out at the very end, when everything is named and divided: a part's shards are its own, and a name
is the same, whatever lies in the folder.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from quantcli.commands import resuming
from quantcli.commands.job import ConvertRequest, Job, Part
from quantcli.errors import UsageError
from quantcli.plan.plan import Plan


def first_look(request: ConvertRequest) -> ConvertRequest:
    """The request that plans everything and writes nothing, for the names of its files.

    Raises UsageError where these are not known before the work.
    """
    if request.sizing is not None:
        raise UsageError(
            "is for outputs named by -t", where="--skip-existing", hint="leave it out, or give types with -t"
        )
    return replace(request, dry_run=True, skip_existing=False, allow_no_imatrix=True)


def find(job: Job) -> list[list[Path]]:
    """What of each output of the job, of `first_look`, is there and stays: all of its files or none, and of a part,
    which is made of shards that stand alone, every one.

    A file under an output's name is complete: nothing else ever gets the name. What an unfinished run has given its
    name is not left out where ``--resume`` goes on with that run: the run looks at it then.
    """
    earlier = resuming.unfinished(job) if job.request.resume else None

    def stays(path: Path) -> bool:
        return path.exists() and not (earlier is not None and earlier.may_have_published(path))

    there = [[path for path in files if stays(path)] for files in job.files]
    alone = job.request.part is not None
    return [kept for kept, files in zip(there, job.files, strict=True) if kept and (alone or len(kept) == len(files))]


def leave_out(parts: Sequence[Part], kept: Set[Path]) -> list[Part]:
    """The parts without the files that are kept; every model stays, if without a plan."""
    if not kept:
        return list(parts)
    found = []
    for part in parts:
        planned = zip(part.plans, part.files, part.targets, strict=True)
        own = [(left, path) for one, files, path in planned if (left := _without(one, files, kept)) is not None]
        found.append(Part(part.model, [one for one, _ in own], [path for _, path in own]))
    return found


def _without(one: Plan, files: Sequence[Path], kept: Set[Path]) -> Plan | None:
    left = [place for place, path in enumerate(files) if path not in kept]
    if len(left) == len(files):
        return one
    if not left:
        return None
    return one.only(left) if one.whole is None else one.whole.only([one.numbers[place] for place in left])
