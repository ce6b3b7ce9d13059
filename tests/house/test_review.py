"""What users and pipelines do to a command line: odd streams, odd paths, odd files, signals."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from broken_files import ARCHITECTURE, ARRAY, FLOAT32, STRING, array, entry, gguf, row, text

from quantcli import cli
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, inspect
from quantcli.errors import BadConfig, MalformedFile, OutputExists, OutputFailed, UsageError
from quantcli.output import checksums
from quantcli.report import terminal as report
from quantcli.sources.checkpoint import hub_name

NAN = b"\0\0\xc0\x7f"
DATA = bytes(32)


@pytest.fixture
def tiny(root: Path) -> Path:
    return root / "examples" / "tiny"


def shell(command: str, cwd: Path, **more) -> subprocess.CompletedProcess[str]:
    """A command line with $Q as quantcli."""
    program = f"{sys.executable} -m quantcli"
    return subprocess.run(
        ["bash", "-c", command.replace("$Q", program)], cwd=cwd, capture_output=True, text=True, timeout=120, **more
    )


# ---- streams


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
    assert run.returncode in (0, 130, -signal.SIGHUP) and "Traceback" not in errors
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
            data=DATA,
        )
    )
    done = shell("$Q inspect a.gguf", tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "x\\x1b[2J" in done.stdout
    assert report.printable("a\tb\nc \u202e \udcff") == "a\tb\nc \\u202e \\udcff"


# ---- metadata that says nonsense


@pytest.mark.parametrize(
    "entries",
    [
        [entry("x.nan", FLOAT32, NAN)],
        [entry("x.nan", ARRAY, array(FLOAT32, 1, NAN))],
        [entry("general.name", STRING, text(b"\xff"))],
        [entry("x.tokens", ARRAY, array(STRING, 1, text(b"\xff")))],
        [entry("general.file_type", STRING, text("abc"))],
        [entry("general.file_type", ARRAY, array(FLOAT32, 2, bytes(8)))],
    ],
)
def test_inspect_shows_it_as_json(tmp_path: Path, entries: list[bytes]) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf([ARCHITECTURE, *entries], [row()], data=DATA))
    done = shell("$Q inspect a.gguf --json", tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(done.stdout, parse_constant=refuse)["kind"] == "gguf" and done.returncode == 0


def test_numbers_of_shards_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf([ARCHITECTURE, entry("split.count", STRING, text("many"))], [row()], data=DATA))
    with pytest.raises(MalformedFile, match="split.count"):
        inspect.run(path)
    done = shell("$Q verify a.gguf", tmp_path)
    assert done.returncode == 1 and "split.count" in done.stdout and "unexpected" not in done.stderr


# ---- places


def test_a_folder_is_meant_by_its_slash(tiny: Path, tmp_path: Path) -> None:
    assert shell(f"$Q convert {tiny} -t Q8_0 -o new/", tmp_path).returncode == 0
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["tiny-Q8_0.gguf"]


def request(tiny: Path, **options) -> convert.ConvertRequest:
    return convert_request(**({"source": tiny, "types": ("Q8_0",)} | options))


@pytest.mark.parametrize("force", [False, True])
def test_pipes_and_devices_are_not_replaced(tiny: Path, tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputFailed, match="not a regular file"):
        convert.run(request(tiny, output=tmp_path / "pipe", force=force))
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_to_nowhere_is_found_before_the_work(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").symlink_to("nowhere")
    with pytest.raises(OutputExists):
        convert.prepare(request(tiny, output=tmp_path / "a.gguf"))


def test_many_threads_are_few(tiny: Path) -> None:
    assert convert.run(request(tiny, threads=10**9, dry_run=True))["threads"] == convert.MOST_THREADS


def test_an_endless_template(tiny: Path) -> None:
    with pytest.raises(UsageError, match="too large"):
        convert.run(request(tiny, chat_template=Path("/dev/zero"), dry_run=True))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    assert hub_name(tmp_path / "a\udcff b") == (None, "a b")


def test_a_config_that_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadConfig, match="names neither"):
        convert.run(request(tmp_path, dry_run=True))


# ---- checksums


def test_the_list_is_no_output_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    with pytest.raises(UsageError, match="same name"):
        convert.run(request(tiny, output=out, checksums=tmp_path / "." / "a.gguf"))
    precious = tmp_path / "thesis.txt"
    precious.write_text("words\n")
    with pytest.raises(MalformedFile, match="line 1"):
        convert.run(request(tiny, output=out, checksums=precious))
    assert precious.read_text() == "words\n" and not out.exists()


@pytest.mark.parametrize(
    "line",
    [
        "{0}  a.gguf",
        "{0} *./a.gguf",
        "SHA256 (a.gguf) = {0}",
        "\ufeff{0}  a.gguf\r",
        "{0}  elsewhere/a.gguf",
        "{1}  other/a.gguf\n{0}  a.gguf",
    ],
)
def test_spellings_of_a_list(tmp_path: Path, line: str) -> None:
    path = tmp_path / "SUMS"
    path.write_text(line.format("a" * 64, "b" * 64) + "\n", encoding="utf-8", newline="")
    assert checksums.Checksums(path).find(tmp_path / "a.gguf") == "a" * 64


def test_two_files_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "SUMS"
    path.write_text(f"{'a' * 64}  x/a.gguf\n{'b' * 64}  y/a.gguf\n")
    assert checksums.Checksums(path).find(tmp_path / "a.gguf") is None


def test_odd_names_come_back(tmp_path: Path) -> None:
    """Also as `sha256sum -c` understands them."""
    odd = tmp_path / "a \\ b\nc\udcff"
    odd.write_bytes(b"x")
    checksums.add(tmp_path / "SUMS", {odd: hashlib.sha256(b"x").hexdigest()})
    assert checksums.Checksums(tmp_path / "SUMS").find(odd) == hashlib.sha256(b"x").hexdigest()
    if sys.platform == "linux":
        assert subprocess.run(["sha256sum", "-c", "SUMS"], cwd=tmp_path, capture_output=True).returncode == 0


# ---- shapes


@pytest.mark.parametrize("kind, written", [("BF16", (64, 1)), ("Q8_0", (64,))])
def test_trailing_ones_as_the_tools_write_them(
    shared: Path, tmp_path: Path, kind: str, written: tuple[int, ...]
) -> None:
    """llama.cpp's converter keeps them, its quantizer drops them; the size is planned either way."""
    out = tmp_path / "a.gguf"
    made = convert.run(convert_request(source=shared / "arch" / "qwen2-moe", types=(kind,), output=out))["outputs"][0]
    from gguf import GGUFReader

    name = "blk.0.ffn_gate_inp_shexp.weight"
    found = {t.name: tuple(map(int, t.shape)) for t in GGUFReader(out).tensors}
    assert found[name] == written == tuple({t["name"]: t["shape"] for t in made["tensors"]}[name])
    assert made["bytes"] == out.stat().st_size


def test_the_bare_name_shows_the_help(tmp_path: Path) -> None:
    done = shell("$Q", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("Usage:")
