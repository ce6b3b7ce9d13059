"""What pipelines do to a command line: closed, full and unread streams, signals, texts that steer terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.broken_files import STRING, entry, gguf, row, text
from helpers.program import shell
from quantcli import cli
from quantcli.report import terminal as report


@pytest.fixture
def tiny(root: Path) -> Path:
    return root / "examples" / "tiny"


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(true)"])
def test_streams_that_nobody_reads_stop_nothing(tiny: Path, tmp_path: Path, streams: str) -> None:
    if "/dev/full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    done = shell(f"$Q convert {tiny} -t Q8_0 -o out.gguf {streams}", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "out.gguf").read_bytes()[:4] == b"GGUF"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_stdout_is_an_error_without_traceback(tmp_path: Path) -> None:
    done = shell("$Q formats --json > /dev/full", tmp_path)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_json_says_usage_errors_too(tmp_path: Path) -> None:
    done = shell("$Q convert . -t Q8_0 --json --nope", tmp_path)
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["code"] == "usage"


def test_the_bare_name_shows_the_help(tmp_path: Path) -> None:
    done = shell("$Q", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("Usage:")


def test_a_folder_is_meant_by_its_slash(tiny: Path, tmp_path: Path) -> None:
    assert shell(f"$Q convert {tiny} -t Q8_0 -o new/", tmp_path).returncode == 0
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["tiny-Q8_0.gguf"]


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.5])
def test_interrupts_leave_no_traceback_and_no_files(tiny: Path, tmp_path: Path, moment: float) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "quantcli", "convert", str(tiny), "-t", "Q4_K_M", "-o", "out.gguf"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(moment)
    run.send_signal(signal.SIGHUP)
    _, errors = run.communicate(timeout=60)
    assert run.returncode in (0, 130, -signal.SIGHUP, -signal.SIGINT) and "Traceback" not in errors
    assert not list(tmp_path.glob(".quantcli-*"))


def test_an_interrupt_outside_of_the_command_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quantcli.cli.app.run", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130 and capsys.readouterr().err == ""


def test_texts_from_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(
        gguf(
            [
                entry("general.architecture", STRING, text("x\x1b[2J")),
                entry("general.name", STRING, text("\x1b]0;title\x07")),
            ],
            [row()],
            data=bytes(32),
        )
    )
    done = shell("$Q inspect a.gguf", tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "x\\x1b[2J" in done.stdout
    assert report.printable("a\tb\nc \u202e \udcff") == "a\tb\nc \\u202e \\udcff"
