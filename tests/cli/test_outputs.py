"""Every place that a command writes to is looked at before its work, whatever the command and the option."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy
import pytest
from typer.models import OptionInfo

from helpers import checkpoints
from helpers.program import quantcli
from quantcli.cli import app

NOWHERE = "/proc/nowhere"  # root may write there by its permissions, and yet nothing can be made
UNWRITABLE = {
    "no file can be made": NOWHERE,
    "no such folder": "missing/x",
    "its folder is a file": "text.txt/x",
    "a name too long": "x" * 300,
    "a folder in place of a file": "folder",
}
#: options of commands that name what is written; the rest of each line would take its time, or fails in the work:
#: the weights of `poisoned` are no numbers
LINES = {
    "convert --output": "convert poisoned -t Q8_0",
    "convert --checksums": "convert poisoned -t Q8_0 -o out/",
    "convert --html": "convert poisoned -t Q8_0 -o out/",
    "convert --keep-statistics": "convert poisoned -t Q8_0 --quality good -o out/",
    "assemble --checksums": "assemble parts",
    "graft --output": "graft a.gguf damaged.gguf --tensors attn_v",
    "imatrix --output": "imatrix poisoned -f text.txt -c 32 --chunks 2",
    "imatrix --states": "imatrix poisoned -f text.txt -c 32 --chunks 2 --layerwise",
    "calibrate --output": "calibrate poisoned",
    "plan --output": "plan poisoned --like Q4_K_M",
    "plan --keep-statistics": "plan poisoned --like Q4_K_M",
    "analyze --html": "analyze poisoned",
    "analyze --keep-statistics": "analyze poisoned",
    "perplexity --states": "perplexity poisoned -f text.txt -c 32 --chunks 2 --layerwise",
    "compare --html": "compare poisoned tiny -f text.txt -c 32 --chunks 2",
    "compare --svg": "compare poisoned tiny -f text.txt -c 32 --chunks 2",
    "compare --reference-cache": "compare poisoned tiny -f text.txt -c 32 --chunks 2",
    "compare --reference-states": "compare poisoned tiny -f text.txt -c 32 --chunks 2",
    "compare --states": "compare poisoned tiny -f text.txt -c 32 --chunks 2 --layerwise",
    "reproduce --output": "reproduce a.gguf --source poisoned",
    "release --attest": "release release.toml",
}
FOLDERS = ("keep-statistics", "states", "calibrate --output", "reproduce --output")  # what is made is a folder
INPUTS = {
    *(f"convert --{name}" for name in ("imatrix", "tensor-type-file", "calibration", "statistics", "chat-template")),
    *("convert --lora-base", "convert --merge-lora", "check --against", "verify --checksums", "imatrix --file"),
    *("imatrix --in-file", "calibrate --calibration", "plan --calibration", "plan --statistics"),
    *("analyze --calibration", "analyze --statistics", "perplexity --file", "compare --file", "embed --file"),
    *(f"reproduce --{name}" for name in ("source", "imatrix", "statistics", "calibration", "merge-lora", "lora-base")),
}
INTO = ("convert --output", "graft --output", "reproduce --output", "compare --states")  # may name a folder


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("outputs")
    tiny = root / "examples" / "tiny"
    (made / "tiny").symlink_to(tiny)
    shutil.copytree(tiny, made / "poisoned")
    tensors = checkpoints.read_tensors(tiny)
    for name, (kind, shape, data) in tensors.items():
        if "v_proj" in name:
            tensors[name] = (kind, shape, numpy.full(len(data) // 2, 0x7FC0, numpy.uint16).tobytes())  # BF16's NaN
    checkpoints.write_tensors(made / "poisoned", tensors)
    (made / "text.txt").write_text("Once upon a time there was a captain. The boy said nothing. " * 60)
    (made / "folder").mkdir()
    (made / "folder" / "holds.txt").touch()
    (made / "release.toml").write_text('source = "poisoned"\ntypes = "Q8_0"\n')
    for line in ("convert tiny -t Q8_0 -o a.gguf -q", "convert tiny -t Q8_0 --split-max-size 1M -o parts/ -q"):
        assert quantcli(*line.split(), cwd=made).returncode == 0
    raw = bytearray((made / "a.gguf").read_bytes())
    raw[-64:] = b"\xff" * 64
    (made / "damaged.gguf").write_bytes(raw)
    for path in sorted((made / "parts").iterdir())[:1]:
        path.write_bytes(path.read_bytes()[:-64] + b"\xff" * 64)
    return made


def test_the_table_has_every_option_that_writes() -> None:
    """An option for a path is in one of both tables."""
    found = set()
    for name in app.COMMANDS:
        run = import_module(f"quantcli.cli.{name}_options").run
        for parameter, hint in get_type_hints(run, include_extras=True).items():
            kind, option = get_args(hint)[:2] if get_origin(hint) is Annotated else (None, None)
            if isinstance(option, OptionInfo) and ("Path" in str(kind) or parameter == "output"):
                found.add(f"{name} --{parameter.replace('_', '-')}")
    assert found == {*LINES, *INPUTS}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("option", LINES)
def test_it_fails_before_the_work(
    option: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    for what, place in UNWRITABLE.items():
        makes_folder = option.endswith(FOLDERS)
        if makes_folder and what == "no such folder":
            continue  # it is made
        if option in INTO and "in place" in what:
            continue  # what is made goes into it
        name = f"--{option.partition('--')[2]}"
        monkeypatch.setattr(sys, "argv", ["quantcli", *LINES[option].split(), name, place])
        status = app._run_command()
        out, err = capsys.readouterr()
        assert status == 1, (what, err)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and place.split("/")[0] in lines[0], (what, err)
        assert not any(word in lines[0] for word in ("NaN", "not finite", "finite", "unexpected")), (what, err)
        assert not out, (what, out)
    assert sorted(folder.rglob("*")) == before


def test_the_work_itself_would_fail(folder: Path) -> None:
    for line in ("convert poisoned -t Q8_0 -o x.gguf", "perplexity poisoned -f text.txt -c 32 --chunks 2"):
        done = quantcli(*line.split(), cwd=folder)
        assert done.returncode == 1 and "NaN" in done.stderr
