"""A few mutants of every target, with the seed below, and every input that has ever ended badly (``crashes/``).

`make fuzz` goes on from here, with other seeds; it saves what it finds below build/fuzz. A folder of there, copied into
``crashes``, is a test: its ``commands.json`` has the command lines.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fuzz import engine
from fuzz.targets import Target, targets

MUTANTS, SEED = 500, 15
CRASHES = Path(__file__).parent / "crashes"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def share(one: Target, every: list[Target]) -> int:
    """How many of the mutants a target gets."""
    return -(-MUTANTS * one.share // sum(target.share for target in every))


@pytest.mark.parametrize("name", [one.name for one in targets(Path("."))])
def test_mutants_end_well(name: str, work: Path, tmp_path: Path) -> None:
    """In a child process, with bounded memory and time."""
    every = list(targets(work))
    target = next(one for one in every if one.name == name)
    failures = engine.run(target, SEED, range(share(target, every)), tmp_path)
    assert not failures, engine.summary(failures, len(failures), 0.0) + "".join(one.detail for one in failures[:3])


def test_crashes_of_the_past_end_well(tmp_path: Path) -> None:
    for kept in sorted(path.parent for path in CRASHES.glob("*/commands.json")):
        folder = tmp_path / kept.name
        shutil.copytree(kept, folder)
        failures = engine.replay(kept.name, engine.commands_of(kept, folder), tmp_path)
        assert not failures, f"{kept.name}: {failures[0].problem}\n{failures[0].detail}"


def test_what_ends_badly_is_kept_and_can_be_replayed(tmp_path: Path) -> None:
    """An exception that is none of quantcli's: its name, and a folder with what it read."""

    def mutant(rng: object, folder: Path) -> list[list[str]]:
        (folder / "input").write_text("x")
        return [["no-such-command", str(folder / "input")]]

    target = Target("made", 1, lambda: mutant)
    (failure,) = engine.run(target, 1, range(1), tmp_path, tmp_path / "kept")
    assert (failure.target, failure.seed, failure.number) == ("made", 1, 0)
    kept = tmp_path / "kept" / "made-1-0"
    assert (kept / "input").read_text() == "x"
    assert engine.commands_of(kept, kept) == [["no-such-command", f"{kept}/input"]]
