"""Conversions that are killed: the short form of `make trust`'s thousand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers import kills

COUNT, SEED = 25, 15
FEW = [  # of the thousand's sixteen
    kills.Scenario(),
    kills.Scenario(split=True, force=True),
    kills.Scenario(("Q8_0", "Q4_0"), split=True, listed=True),
    kills.Scenario(("Q8_0", "Q4_0"), split=True, force=True, listed=True),
]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked copies of a process with threads")


def test_killed_conversions_leave_whole_files_and_true_messages(tmp_path: Path) -> None:
    outcomes = list(kills.kills(tmp_path, SEED, range(COUNT), FEW))
    assert [(o.number, o.signal, o.aim, o.problems) for o in outcomes if o.problems] == []
    assert len(outcomes) == COUNT and {o.signal for o in outcomes} == {s.name for s in kills.SIGNALS}
