"""Progress of long work as calls of a function, and warnings as Python's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quantcli.report.terminal import Advance, Share, Silent, Step


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` ("bytes" of a source, or "steps") of the work called ``task``; ``known``: what is known by
    then, as people read it."""

    task: str
    done: int
    total: int
    unit: Literal["bytes", "steps"]
    known: str = ""


Callback: TypeAlias = Callable[[Progress], object]  # what it raises ends the work, as an interrupt does


class QuantcliWarning(UserWarning):
    """What the command line prints as a warning."""


class Listening(Silent):
    """A reporter that calls ``callback``, and otherwise keeps still."""

    def __init__(self, callback: Callback | None) -> None:
        super().__init__()
        self.callback = callback

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *unused: object) -> None:
        """Nothing is open."""

    def warning(self, text: str) -> None:
        warnings.warn(text, QuantcliWarning, stacklevel=6)

    @contextmanager
    def progress(self, label: str, total_bytes: int, begun: int = 0, share: Share | None = None) -> Iterator[Advance]:
        def advance(done_bytes: int, weights: int = 0) -> None:
            self._tell(Progress(label, done_bytes, total_bytes, "bytes"))

        yield advance

    @contextmanager
    def steps(self, label: str, total: int) -> Iterator[Step]:
        def advance(done: int, known: str = "") -> None:
            self._tell(Progress(label, done, total, "steps", known))

        yield advance

    def _tell(self, progress: Progress) -> None:
        if self.callback is not None:
            self.callback(progress)
