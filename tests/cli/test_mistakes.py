"""Mistakes that people made, each with the words that help: what is wrong, where, and the next command that works."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from quantcli.cli import app, examples
from quantcli.cli.common import complete_types
from quantcli.plan import recipes
from quantcli.report import terminal


class Said:
    """What a command line printed, and its exit code."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def typed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command line in a folder with `tiny`, `text.txt`, `broken.jinja`, `models/` and `pointer.gguf`."""
    (tmp_path / "tiny").symlink_to(root / "examples" / "tiny")
    (tmp_path / "text.txt").write_text("Once upon a time there was a captain. " * 100)
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}{{ m.content }}{% end %}")
    (tmp_path / "models").mkdir()
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "bare").mkdir()
    shutil.copy(tmp_path / "tiny" / "config.json", tmp_path / "bare")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234567\n"
    (tmp_path / "pointer.gguf").write_text(pointer)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["quantcli", *words])
        status = app._run_command()
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run


# command line, exit code, what has to be said, what must not be said
MISTAKES: dict[str, tuple[list[str], int, list[str], list[str]]] = {
    "folder without weights": (["convert", "bare", "-t", "F16"], 1, ["bare", "no model.safetensor"], ["did you mean"]),
    "the same, spelt otherwise": (["check", "./models/../bare/"], 1, ["bare"], ["did you mean"]),
    "empty file": (["convert", "empty.gguf", "-t", "Q8_0"], 1, ["empty.gguf", "it is empty"], ["b''"]),
    "hub without a repository": (["inspect", "hf://"], 2, ["hf://: "], ["hf::"]),
    "output at the hub": (
        ["convert", "tiny", "-t", "Q8_0", "-o", "hf://org/x"], 1, ["hf://org", "lie here"], ["create the folder"]
    ),
    "list to nowhere": (["assemble", "models", "--checksums", "-"], 2, ["name of a file"], [".gguf", "-o"]),
    "misspelt folder": (["convert", "tinny", "-t", "Q8_0"], 1, ["tinny", "did you mean tiny?"], ["hf download"]),
    "misspelt file in a folder": (["convert", "models/x.gguf", "-t", "Q8_0"], 1, ["models/x.gguf"], ["hf download"]),
    "misspelt name in a folder that is there": (["convert", "models/tiny", "-t", "Q8_0"], 1, [], ["hf download"]),
    "a model of the hub": (["convert", "org/name", "-t", "Q8_0"], 1, ["org/name"], []),
    "pointer": (["inspect", "pointer.gguf"], 1, ["git lfs pull"], []),
    "types behind each other": (
        ["convert", "tiny", "-t", "Q4_K_M", "Q8_0"], 2, ["-t TYPE,Q8_0", "-t again"], ["--help"],
    ),
    "no type": (["convert", "tiny"], 2, ["-t Q4_K_M"], []),
    "nothing to compare": (["compare", "tiny", "-f", "text.txt"], 2, ["MODEL", "quantcli compare DIR out/"], []),
    "no prompt": (["generate", "tiny"], 2, ["--prompt", "quantcli generate model.gguf -p"], []),
    "misspelt type": (["convert", "tiny", "-t", "Q4_KM"], 2, ["did you mean Q4_K_M"], []),
    "misspelt type among others": (["convert", "tiny", "-t", "Q8_0,Q4_KM"], 2, ["'Q4_KM'", "Q4_K_M"], []),
    "-f is no --force": (["convert", "tiny", "-t", "Q8_0", "-f"], 2, ["--force"], []),
    "-f is no --force here, either": (["graft", "a.gguf", "b.gguf", "--tensors", "x", "-f"], 2, ["--force"], []),
    "stdout": (["convert", "tiny", "-t", "Q8_0", "-o", "-"], 2, ["stdout"], []),
    "stdout of a matrix": (["imatrix", "tiny", "-o", "-", "-c", "16", "--chunks", "1"], 2, ["stdout"], []),
    "no importance": (["convert", "tiny", "-t", "IQ2_XS"], 1, ["--imatrix auto"], []),
    "broken template": (
        ["convert", "tiny", "-t", "Q8_0", "--chat-template", "broken.jinja"], 2, ["--chat-template", "line 1"], [],
    ),
    "report over an input": (
        ["compare", "tiny", "tiny", "-f", "text.txt", "--html", "text.txt", "--force"], 1, ["text.txt"], ["-o"],
    ),
    "picture over an input": (
        ["compare", "tiny", "tiny", "-f", "text.txt", "--svg", "text.txt"], 1, ["text.txt"], [" -o"],
    ),
    "report into no folder": (
        ["compare", "tiny", "tiny", "-f", "text.txt", "--html", "no/where.html"], 1, ["no"], [" -o"],
    ),
    "text that is not there": (["perplexity", "tiny", "-f", "txt.txt"], 1, ["did you mean text.txt?"], []),
    "matrix that is not there": (
        ["convert", "tiny", "-t", "Q8_0", "--imatrix", "pinter.gguf"], 1, ["did you mean pointer.gguf?"], [],
    ),
    "unknown command": (["covert", "tiny"], 2, ["convert"], []),
    "unknown option": (["convert", "tiny", "-t", "Q8_0", "--treads", "2"], 2, ["--threads"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_said(name: str, typed, tmp_path: Path) -> None:
    words, status, needed, absent = MISTAKES[name]
    before = sorted(path.name for path in tmp_path.iterdir())
    said = typed(*words)
    assert said.status == status, said.err
    assert said.err.startswith("error: ") and len(said.err.splitlines()) <= 3 and not said.out
    assert all(text in said.err for text in needed), said.err
    assert not any(text in said.err for text in absent), said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_commas_between_types_and_a_summary(typed) -> None:
    several = typed("convert", "tiny", "-t", "Q4_K_M,q8_0", "-t", "Q4_K_M", "--dry-run")
    assert several.status == 0 and "tiny-Q4_K_M.gguf" in several.out and "tiny-Q8_0.gguf" in several.out
    assert "blk.0" not in several.out
    every = typed("convert", "tiny", "-t", "Q4_K_M,q8_0", "--dry-run", "--tensors")
    assert every.out.count("blk.0.attn_q.weight") == 2
    one = typed("convert", "tiny", "-t", "Q4_K_M", "--dry-run")
    assert one.out.count("blk.0.attn_q.weight") == 1


def test_one_existing_output_does_not_stop_the_others(typed, tmp_path: Path) -> None:
    assert typed("convert", "tiny", "-t", "F16", "-o", "out/", "--quiet").status == 0
    before = (tmp_path / "out" / "tiny-F16.gguf").stat().st_mtime_ns
    stopped = typed("convert", "tiny", "-t", "F16,Q8_0", "-o", "out")
    assert stopped.status == 1 and "exists already" in stopped.err
    done = typed("convert", "tiny", "-t", "F16,Q8_0", "-o", "out", "--skip-existing")
    assert done.status == 0 and "out/tiny-F16.gguf is there: kept" in done.err
    assert (tmp_path / "out" / "tiny-Q8_0.gguf").exists()
    assert (tmp_path / "out" / "tiny-F16.gguf").stat().st_mtime_ns == before
    again = typed("convert", "tiny", "-t", "F16,Q8_0", "-o", "out", "--skip-existing", "--json")
    assert again.status == 0 and json.loads(again.out)["outputs"] == []
    size = typed("convert", "tiny", "--like", "Q4_K_M", "--skip-existing")
    assert size.status == 2 and "--skip-existing" in size.err


def test_commas_make_a_folder_of_the_output(typed, tmp_path: Path) -> None:
    done = typed("convert", "tiny", "-t", "F16,Q8_0", "-o", "out", "--quiet")
    assert done.status == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tiny-F16.gguf", "tiny-Q8_0.gguf"]


def test_json_leaves_talk_on_stderr(typed) -> None:
    said = typed("convert", "tiny", "-t", "Q8_0", "--json")
    assert json.loads(said.out)["schema"] == 1
    assert "done in" not in said.out
    quiet = typed("convert", "tiny", "-t", "Q8_0", "--json", "--quiet", "--force")
    assert json.loads(quiet.out)["schema"] == 1 and quiet.err == ""


def test_the_version_has_a_short_form(typed) -> None:
    assert typed("-V").out == typed("--version").out != ""


def test_shells_are_offered_recipes() -> None:
    assert complete_types("q4_k") == ["Q4_K_M", "Q4_K_S"]
    assert complete_types("Q8_0,IQ4") == ["Q8_0,IQ4_NL", "Q8_0,IQ4_XS"]
    assert complete_types("zz") == []


def test_every_example_names_a_command_and_its_options(typed) -> None:
    for name, lines in examples.LINES.items():
        assert name in app.COMMANDS
        text = typed(name, "--help").out
        for line in lines:
            words = line.partition("#")[0].split()
            assert words[:2] == ["quantcli", name] and line in text
            assert all(word in text for word in words[2:] if word.startswith("-")), line


def test_purposes_of_recipes_hold_no_number_that_the_table_has() -> None:
    for one in recipes.FILE_TYPES.values():
        assert " bits" not in one.purpose, one.name


NAMES = ["a-model-with-a-very-long-name-that-nobody-would-shorten-Q4_K_M.gguf", "b.gguf"]


def narrow(monkeypatch: pytest.MonkeyPatch, columns: int) -> terminal.Reporter:
    """A reporter whose terminal is that many characters wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return terminal.Reporter()


def test_names_are_never_folded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = narrow(monkeypatch, 40)
    reporter.table(("file", "for"), [(name, "some long text " * 5) for name in NAMES])
    assert all(name in capsys.readouterr().out for name in NAMES[:1])


def test_a_narrow_terminal_is_spared_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [(name, "1.0", "2.0", "3.0") for name in ("a.gguf", "b.gguf")]
    columns = ("model", "first figure", "second figure", "third figure")
    narrow(monkeypatch, 40).table(columns, lines, right=(1, 2, 3), spare=(2,))
    captured = capsys.readouterr()
    assert "third figure" in captured.out and "second figure" not in captured.out
    assert captured.out.count("a.gguf") == 1 and "second figure" in captured.err
    narrow(monkeypatch, 80).table(columns, lines, right=(1, 2, 3), spare=(2,))
    assert "second figure" in capsys.readouterr().out


def test_copies_of_the_bundled_model_convert_alike(typed, tmp_path: Path) -> None:
    """A folder whose name holds blanks and commas is a folder like any other."""
    shutil.copytree(tmp_path / "tiny", tmp_path / "my model, v2")
    assert typed("convert", "my model, v2", "-t", "Q8_0", "-o", "a.gguf", "--quiet").status == 0
    assert typed("convert", "tiny", "-t", "Q8_0", "-o", "b.gguf", "--quiet").status == 0
