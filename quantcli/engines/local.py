"""This machine as an engine: ``local`` does part after part in this process, ``local://4`` in four others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from quantcli.engines import Arguments, Result
from quantcli.errors import EngineFailed, UsageError

MOST = 256  # processes


class Engine:
    """Processes of this machine; one that is lost ends the work."""

    def __init__(self, name: str, place: str) -> None:
        """``place``: how many processes, or nothing. Raises UsageError."""
        if place and not (place.isascii() and place.isdigit() and 1 <= int(place) <= MOST):
            raise UsageError(
                f"{place!r} is no number of processes", where="--engine", hint=f"local://1 to local://{MOST}"
            )
        self.name, self.pool = name, None
        if place:
            self.pool = ProcessPoolExecutor(int(place), multiprocessing.get_context("spawn"))

    def results(
        self, task: Callable[..., Result], arguments: Sequence[Arguments], say: Callable[[str], None]
    ) -> Iterator[tuple[int, Result]]:
        if self.pool is None:
            for number, one in enumerate(arguments):
                yield number, task(*one)
            return
        futures = {self.pool.submit(task, *one): number for number, one in enumerate(arguments)}
        try:
            yield from _as_completed(futures)
        except BrokenProcessPool as error:
            raise EngineFailed(
                "a process of the engine was killed", where=self.name, hint="perhaps for memory: use fewer processes"
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _as_completed(futures: dict[Future[Result], int]) -> Iterator[tuple[int, Result]]:
    """What is done, and nothing of it kept."""
    left = set(futures)
    while left:
        done, left = wait(left, return_when=FIRST_COMPLETED)
        for future in done:
            yield futures.pop(future), future.result()
