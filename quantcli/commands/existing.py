"""`convert --skip-existing`: outputs that are there are kept, the others are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import UsageError


def first_look(request: ConvertRequest) -> ConvertRequest:
    """The request that plans everything and writes nothing, for the names of its files.

    Raises UsageError where these are not known before the work.
    """
    if request.sizing is not None:
        raise UsageError(
            "is for outputs named by -t", where="--skip-existing", hint="leave it out, or give types with -t"
        )
    return replace(request, dry_run=True, skip_existing=False, allow_no_imatrix=True)


def leave_out(request: ConvertRequest, job: Job) -> tuple[ConvertRequest | None, list[Path]]:
    """The request without the outputs that are there (None: all are), and these files. ``job``: of `first_look`.

    A file under an output's name is complete: nothing else ever gets the name.
    """
    there = [[all(path.exists() for path in files) for files in part.files] for part in job.parts]
    kept = [
        files[0]
        for part, known in zip(job.parts, there, strict=True)
        for files, found in zip(part.files, known, strict=True)
        if found
    ]
    missing = [one for one, found in zip(request.file_types, there[0], strict=True) if not found]
    projector = request.mmproj if len(there) > 1 and not all(there[1]) else None
    if projector is not None and not missing:
        return replace(request, file_types=(projector,), mmproj=None, mmproj_only=True), kept
    if not missing:
        return None, kept
    return replace(request, file_types=tuple(missing), mmproj=projector, into_folder=True), kept
