"""Conversions that end in the middle of their work, and what their reporter is warned of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quantcli.encode import sinks
from quantcli.report.terminal import Reporter


class Stop(BaseException):
    """The end of a run, wherever it is."""


class Heard(Reporter):
    """Keeps the warnings."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.warned: list[str] = []

    def warning(self, text: str) -> None:
        self.warned.append(text)


def stop_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that sets behind how many written slabs a run ends; 0: it does not."""
    left, original = [0], sinks.Sink._write

    def write(self: sinks.Sink, slab: object, data: object) -> None:
        original(self, slab, data)  # type: ignore[arg-type]  # handed on as it came
        left[0] -= data is not None
        if data is not None and left[0] == 0:
            raise Stop

    monkeypatch.setattr(sinks.Sink, "_write", write)

    def stop(count: int) -> None:
        left[0] = count

    return stop
