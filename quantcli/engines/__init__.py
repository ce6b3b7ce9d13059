"""Engines: who does the parts of a long work. Parts are plain functions of plain arguments (`tasks`); an engine is one
small file with a class of this protocol, and a row in `SCHEMES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from quantcli.errors import UsageError

Result = TypeVar("Result")
Arguments: TypeAlias = tuple[Any, ...]  # that pickle takes
LOCAL, WHERE = "local", "--engine"

#: what stands before "://" -> the module with its class `Engine`
SCHEMES = {LOCAL: "quantcli.engines.local", "dask": "quantcli.engines.dask"}


class Engine(Protocol):
    """Open until `close`. ``name`` is what the user gave."""

    name: str

    def results(
        self, task: Callable[..., Result], arguments: Sequence[Arguments], say: Callable[[str], None]
    ) -> Iterator[tuple[int, Result]]:
        """(number of the arguments, ``task(*arguments)``) as they come, in any order.

        ``say`` tells the user what is waited for. A part whose worker is lost is done again elsewhere. Leaving the
        iterator, also by an exception, ends what is still running. Raises what a task raises, EngineFailed.
        """
        ...

    def close(self) -> None:
        """No part is running any more."""
        ...


def open_engine(text: str) -> Engine:
    """The engine of a URL: ``scheme://place``. Raises UsageError, MissingPackage, EngineFailed."""
    scheme, _, place = text.partition("://")
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise UsageError(
            f"there is no engine {text!r}", where=WHERE, hint=f"known: {known}; for example dask://scheduler:8786"
        )
    engine: Engine = importlib.import_module(SCHEMES[scheme]).Engine(text, place)
    return engine


def near_only(hint: str) -> UsageError:
    """The error for a model of the hub: what its files are called here says nothing to a worker."""
    return UsageError("workers read files under their own paths, not from the hub", where=WHERE, hint=hint)


def in_order(found: Iterator[tuple[int, Result]]) -> Iterator[Result]:
    """Results by their numbers, 0, 1, 2 ...: those that come early wait."""
    early: dict[int, Result] = {}
    wanted = 0
    for number, result in found:
        early[number] = result
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1
