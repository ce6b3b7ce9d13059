"""Tables and progress as a terminal shows them."""

from __future__ import annotations

import io

import pytest

from quantcli.report import terminal as report

COLUMNS = ("model", "KLD", "top", "ratio")
ROWS = [("a-long-name", "0.001234 +- 0.000012", "98.12", "1.00012"), ("b", "1.5", "50.00", "2.1")]


@pytest.mark.parametrize(
    "width, parts", [(80, [[0, 1, 2, 3]]), (49, [[0, 1, 2, 3]]), (48, [[0, 1, 2], [0, 3]]), (27, [[0, 1], [0, 2, 3]])]
)
def test_figures_that_do_not_fit_come_below(width: int, parts: list[list[int]]) -> None:
    assert report._fitting(COLUMNS, ROWS, range(1, 4), width) == parts


def test_tables_of_texts_stay_whole() -> None:
    assert report._fitting(COLUMNS, ROWS, (1, 2), 20) == [[0, 1, 2, 3]]


def test_a_narrow_terminal_breaks_no_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    report.Reporter().table(COLUMNS, ROWS, right=range(1, 4))
    shown = out.getvalue()
    assert all(cell in shown for row in ROWS for cell in row) and shown.count("a-long-name") == 2


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.time, "monotonic", lambda: 110.0)
    assert report.time_left(100.0, 4, 12) == pytest.approx(20.0)
