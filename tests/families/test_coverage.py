"""How many of llama.cpp's text classes are read: the count, and that nothing counts without an oracle."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from helpers import oracles

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "coverage.py"
LEAST = 210


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_of_classes", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_count(coverage: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main() == 0
    words = capsys.readouterr().out.split()
    assert int(words[0]) >= LEAST and words[1:3] == ["of", "267"]


def test_every_class_once(coverage: ModuleType) -> None:
    names = [one.name for one in coverage.listed()]
    assert len(names) == len(set(names)) == 267


def test_an_alias_shares_what_is_special(coverage: ModuleType) -> None:
    """With an oracle's class taken away, its aliases do not count any more."""
    classes = coverage.listed()
    before = dict(coverage.counted(classes))
    alias = next(one for one, how in before.items() if how == "alias")
    kin = [one for one in classes if (one.converter, one.special) == (alias.converter, alias.special)]
    orphans = dict(coverage.counted([one._replace(oracle="") if one in kin else one for one in classes]))
    assert not any(
        how for one, how in orphans.items() if (one.converter, one.special) == (alias.converter, alias.special)
    )


def test_oracles_exist(coverage: ModuleType, shared: Path) -> None:
    for one in coverage.listed():
        if one.oracle.startswith("derived/"):
            assert one.oracle.removeprefix("derived/") in oracles.names("derived"), one.name
        elif one.oracle:
            assert (shared / one.oracle / "expected.json").exists(), one.name
