"""Several files that appear together: a set of shards, the outputs of one command, the list of their checksums.

A file system renames one file at a time, so the order does the work. The first shard of a set is what a reader opens:
an old one goes before anything else is touched, the new one comes last. A run that dies in between leaves no set that
looks complete. Interrupts wait until all names are there (it takes milliseconds), so that they find nothing or all.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from quantcli.output.writer import OutputFile, failures

DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_published: list[Path] = []


def published() -> list[Path]:
    """The files that this process has given their final names, in that order: what an interrupted run has left."""
    return list(_published)


def publish(sets: Sequence[Sequence[OutputFile]], finish: Callable[[], None] | None = None) -> None:
    """Give finished files their final names: every set of ``sets`` (its files in the order of their numbers); then
    ``finish``, which writes their checksums into a list. Raises OutputFailed, OutputExists; the caller discards what
    was not published."""
    with deferred_interrupts():
        for files in sets:
            if len(files) > 1 and files[0].force:
                _remove(files[0].path)
            for file in reversed(files):
                _publish(file)
        if finish is not None:
            finish()


def _publish(file: OutputFile) -> None:
    file.publish()
    _published.append(file.path)


def _remove(path: Path) -> None:
    with failures(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait until the block is done. Only the main thread can; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.getsignal(number) for number in DEFERRED}
    kept = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in kept:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for waiting in dict.fromkeys(arrived):
            os.kill(os.getpid(), waiting)
