"""The sha256 of the sources, made while these are read, so that what does not fit into memory comes from the disk once.

The header of an output's first shard tells it. So this one file is written with zeros in their place, gets its header
as soon as they are known, and is hashed from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from types import TracebackType

from quantcli import places
from quantcli.commands.job import Job
from quantcli.plan.plan import Plan
from quantcli.report.terminal import Reporter
from quantcli.sources import digests

AHEAD = 4 << 30  # bytes that hashing may be ahead of reading: the system's cache still has them then
LOOK_SECONDS = 0.2  # between looks at how far it is, when nothing else is left to do


def first_shard(one: Plan) -> int | None:
    """The place of the whole plan's first shard among those of the plan; None where another part makes it."""
    if one.whole is None:
        return 0
    return one.numbers.index(0) if 0 in one.numbers else None


def unknown(job: Job) -> list[str]:
    """The files of this machine whose hashes the job's outputs will tell and nobody knows yet."""
    if all(first_shard(one) is None for one in job.plans):
        return []
    paths = [path for part in job.parts for path in part.model.weight_files if path not in part.model.digests]
    return [path for path in dict.fromkeys(paths) if places.elsewhere(path) is None]


class Hashing:
    """Hashes ``paths`` on a thread while the ``with`` is open. Nothing runs any more when it is left.

    ``alone``: nobody else reads most of it, as of a part, so that it goes as fast as this many ``threads`` can.
    """

    def __init__(self, paths: Sequence[str], threads: int = 1, *, alone: bool = False) -> None:
        self.paths, self._threads, self._alone = paths, threads if alone else 1, alone
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="quantcli-hash")
        self._moved = threading.Condition()
        self._read = self._hashed = 0
        self._size = sum(map(digests.size, paths))
        self._stopped = False

    def __enter__(self) -> Hashing:
        self._found: Future[dict[str, str]] = self._pool.submit(digests.sha256, self.paths, self._threads, self._tell)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._moved:
            self._stopped = True
            self._moved.notify_all()
        self._pool.shutdown()

    def _tell(self, hashed: int) -> None:
        """Waits where hashing is too far ahead."""
        with self._moved:
            self._hashed = hashed
            self._moved.wait_for(lambda: self._stopped or self._alone or hashed <= self._read + AHEAD)
            if self._stopped:
                raise CancelledError

    def read(self, count: int) -> None:
        """So many bytes of the sources have been read."""
        with self._moved:
            self._read = count
            self._moved.notify_all()

    @property
    def complete(self) -> bool:
        """`finish` has nothing to wait for."""
        return self._found.done()

    def finish(self, reporter: Reporter | None) -> dict[str, str]:
        """Path -> sha256 (hex), when the sources are read. Raises what `digests.sha256` does."""
        self.read(1 << 63)
        if self._found.done() or reporter is None:
            return self._found.result()
        with reporter.progress("hash the source", self._size, self._hashed) as advance:
            while True:
                try:
                    return self._found.result(LOOK_SECONDS)
                except StillRunning:
                    advance(self._hashed)
