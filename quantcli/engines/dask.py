"""An existing Dask cluster as an engine: ``dask://scheduler:8786`` (the extra ``cluster``).

Workers need the same version of quantcli, and the files under the same paths. Dask gives the part of a lost worker to
another one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quantcli import __version__
from quantcli.engines import Arguments, Result
from quantcli.errors import EngineFailed, MissingPackage, QuantcliError, UsageError

GONE = (asyncio.CancelledError, concurrent.futures.CancelledError)  # what parts end with when the scheduler is lost
CONNECT_SECONDS = 10
LAST_PORT = 65_535
LOOK_SECONDS = 5.0  # between looks at the workers while nothing comes
ALONE_SECONDS = 60.0  # without any worker, then the work is given up


class Engine:
    """A client of the scheduler."""

    def __init__(self, name: str, place: str) -> None:
        """``place``: host:port. Raises UsageError, MissingPackage, EngineFailed."""
        host, _, port = place.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and len(port) < 6 and 1 <= int(port) <= LAST_PORT):
            raise UsageError(
                f"{place!r} is no address of a scheduler", where="--engine", hint="host:port, as in dask://host:8786"
            )
        try:
            self.distributed: Any = importlib.import_module("distributed")
        except ImportError as error:
            raise MissingPackage(
                "Dask clusters need the package distributed", where="--engine", hint="pip install 'quantcli[cluster]'"
            ) from error
        self.name = name
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said by what is raised
        try:
            self.client = self.distributed.Client(f"tcp://{place}", timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # distributed has no common class of its errors
            raise EngineFailed(
                f"no scheduler answers within {CONNECT_SECONDS} s ({_cause(error)})",
                where=name,
                hint="start one: dask scheduler; and workers: dask worker HOST:8786 --nworkers N --nthreads 1",
            ) from error
        if not self._workers():
            self.close()
            raise EngineFailed(
                "the scheduler has no workers", where=name, hint=f"start some: dask worker {place} --nthreads 1"
            )

    def _workers(self) -> int:
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def results(
        self, task: Callable[..., Result], arguments: Sequence[Arguments], say: Callable[[str], None]
    ) -> Iterator[tuple[int, Result]]:
        numbers = {self.client.submit(task, *one, pure=False): number for number, one in enumerate(arguments)}
        seen = time.monotonic()  # when a worker was there last
        try:
            while numbers:
                try:
                    with self.client.as_current():
                        done = self.distributed.wait(list(numbers), LOOK_SECONDS, "FIRST_COMPLETED").done
                except TimeoutError:
                    seen = self._looked(seen, say)
                    continue
                except GONE as error:
                    raise self._gone() from error
                for future in done:
                    number = numbers.pop(future)
                    yield number, self._result(future)
                    future.release()
        finally:
            if numbers:
                self.client.cancel(list(numbers), force=True)

    def _looked(self, seen: float, say: Callable[[str], None]) -> float:
        """When a worker was there last. Raises EngineFailed where that is too long ago, or the scheduler is gone."""
        if self.client.status != "running":
            raise self._gone()
        if self._workers():
            return time.monotonic()
        waited = time.monotonic() - seen
        if waited > ALONE_SECONDS:
            raise EngineFailed("no worker is left", where=self.name, hint="start workers again; look into their logs")
        say(f"{self.name}: no worker is left; waiting for one")
        return seen

    def _result(self, future: Any) -> Any:
        """What a task has returned. Raises what it raised, EngineFailed."""
        try:
            return future.result()
        except QuantcliError:
            raise
        except GONE as error:
            raise self._gone() from error
        except Exception as error:
            if type(error).__name__ == "KilledWorker":
                what, hint = "a part has killed several workers", "give workers more memory: look into their logs"
            else:
                what = f"a worker cannot do its part ({_cause(error)})"
                hint = f"every worker needs quantcli {__version__}, installed like here: pip list"
            raise EngineFailed(what, where=self.name, hint=hint) from error

    def _gone(self) -> EngineFailed:
        return EngineFailed("the scheduler is gone", where=self.name, hint="start it and its workers again")

    def close(self) -> None:
        self.client.close(timeout=CONNECT_SECONDS)


def _cause(error: BaseException) -> str:
    """The innermost error that says something: those around it speak of Dask's graphs."""
    found, inner = error, error.__cause__
    while inner is not None:
        found, inner = (inner if str(inner) else found), inner.__cause__
    return f"{type(found).__name__}: {found}"[:300]
