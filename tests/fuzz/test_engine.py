"""The engine's limits: of time by the processor, more by the clock; of memory; and what became of a child."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import engine
from fuzz.targets import Target


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def grow() -> None:
    bytearray(3 * engine.MEMORY)


ACTS: dict[str, tuple[Callable[[], object], str | None]] = {
    "good": (lambda: None, None),
    "waits for the processor": (lambda: time.sleep(2 * engine.SECONDS), None),
    "hangs": (lambda: time.sleep(60), "more than 0.4 s"),
    "computes for ever": (lambda: spin(60), "more than 0.4 s"),
    "crashes": (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal SIGKILL"),
    "takes all memory": (grow, "MemoryError"),
    "raises": (lambda: {}["missing"], "KeyError"),
    "ends": (lambda: os._exit(3), "exit 3"),
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limits are Linux's")
@pytest.mark.parametrize("act", ACTS)
def test_how_a_mutant_ends(tmp_path: Path, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three mutants the second does it; the others are run whatever it does."""
    done, wanted = ACTS[act]
    monkeypatch.setattr(engine, "SECONDS", 0.4)

    def outcome(command: list[str]) -> tuple[str | None, str]:
        (tmp_path / command[0]).touch()
        try:
            if command[0] == "1":
                done()
        except Exception as error:
            return type(error).__name__, ""
        return None, ""

    def mutant(rng: random.Random, folder: Path) -> list[list[str]]:
        return [[str(first.index(rng.random()))]]

    first = [random.Random(f"made 7 {number}").random() for number in range(3)]
    monkeypatch.setattr(engine, "outcome", outcome)
    target = Target("made", 1, lambda: mutant)
    failures = engine.run(target, 7, range(3), tmp_path / "work")
    assert [(one.number, one.problem) for one in failures] == ([] if wanted is None else [(1, wanted)])
    assert all((tmp_path / str(number)).exists() for number in range(3))
