"""Several files that appear together: a set of shards, the outputs of one command, the list of their checksums.

A file system renames one file at a time, so the order does the work. The first shard of a set is what a reader opens:
an old one goes before anything else is touched, the new one comes last. A run that dies in between leaves no set that
looks complete. Interrupts and other runs wait until all names are there (it takes milliseconds), so that they find
nothing or all; the list of checksums is on the disk before the first name is given, and gets its own last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from quantcli.errors import QuantcliError
from quantcli.output import checksums
from quantcli.output.interrupts import deferred_interrupts
from quantcli.output.named import listing
from quantcli.output.named import published as published
from quantcli.output.writer import OutputFile, failures, locked_folders


def publish(sets: Sequence[Sequence[OutputFile]], listed: Path | None = None) -> None:
    """Give finished files their final names: every set of ``sets`` (its files in the order of their numbers); then
    the list of checksums at ``listed``, with their lines. Raises OutputFailed, OutputExists, MalformedFile; of a set
    that could not be completed nothing new stays, and the caller discards what was not published."""
    files = [file for one in sets for file in one]
    folders = [file.path.parent for file in files] + ([] if listed is None else [listed.parent])
    with locked_folders(folders), deferred_interrupts(), ExitStack() as stack:
        lines = None
        if listed is not None:
            lines = checksums.prepare(listed, {file.path: file.sha256 for file in files})
            stack.callback(lines.discard)
        complete: list[Path] = []
        try:
            for one in sets:
                _publish_set(one)
                complete += [file.path for file in one]
            if lines is not None:
                lines.publish()
        except QuantcliError as error:
            if complete:
                error.message += f"; complete under {listing(complete)}"
            raise


def _publish_set(files: Sequence[OutputFile]) -> None:
    """The last shard first. Where one fails, those that have their names already lose them again: they are new, and
    no reader can use them."""
    replaced = len(files) > 1 and files[0].force and not files[0].there and _remove(files[0].path)
    done: list[OutputFile] = []
    try:
        for file in reversed(files):
            file.publish()
            done.append(file)
    except QuantcliError as error:
        for file in done:
            file.withdraw()
        if replaced:
            error.message += f"; the old {files[0].path} is gone, its other shards are no model without it"
        raise


def _remove(path: Path) -> bool:
    """Whether there was such a file."""
    with failures(path), suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False
