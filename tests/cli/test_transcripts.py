"""What a user sees, as text files: command, stdout, stderr and exit code of every command's happy path and errors.

`make transcripts` (QUANTCLI_TRANSCRIPTS=write) writes them anew from the lines that begin with "$ "; look at the change
before you commit it. They run in one folder per file, 100 columns wide, with the inputs of `prepared` below.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "transcripts"
TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
TEXT = "Once upon a time there was a captain, and the wind was in the west. The boy said nothing. " * 40

# What differs between two runs, or between the last digits of two machines -> what stands for it.
VOLATILE = (
    (re.compile(r"^[^\n]*: \d+( %,| of) [^\n]* left\n", re.MULTILINE), ""),  # progress, on a machine that is busy
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min)\b"), "<time>"),
    (re.compile(r"\b[\d,.]+ [kMG]?\b ?(tokens|weights|chunks|B)/s"), r"<speed> \1/s"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<hash>"),
    (re.compile(r"\b[\d.]+ [kMGT]?B free\b"), "<free> free"),
)
FIGURES = ("compare", "perplexity", "imatrix", "generate", "embed")  # commands whose columns shift with their figures


def checkpoint(folder: Path, old: str = "", new: str = "") -> Path:
    """A copy of the bundled checkpoint (links), with a text of its config.json replaced."""
    folder.mkdir()
    for path in TINY.iterdir():
        (folder / path.name).symlink_to(path)
    config = (folder / "config.json").read_text()
    assert old in config
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(config.replace(old, new))
    return folder


def with_bytes(source: Path, target: Path, position: int, data: bytes) -> None:
    """A copy of a file with some bytes replaced; a position below zero counts from the end."""
    content = bytearray(source.read_bytes())
    position %= len(content)
    content[position : position + len(data)] = data
    target.unlink(missing_ok=True)
    target.write_bytes(content)


def damaged(folder: Path) -> None:
    """Checkpoints and files that are wrong in one thing each, which their name says."""
    checkpoint(folder / "misspelt", "LlamaForCausalLM", "LlammaForCausalLM")
    checkpoint(folder / "layers", '"num_hidden_layers": 4', '"num_hidden_layers": 5')
    checkpoint(folder / "negative", '"hidden_size": 256', '"hidden_size": -1')
    checkpoint(folder / "damaged", '"hidden_act"', '"hidden')
    with_bytes(TINY / "model.safetensors", checkpoint(folder / "nan") / "model.safetensors", 2_000_000, b"\xff\x7f")
    (folder / "pickled").mkdir()
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (folder / "pickled" / "config.json").write_bytes((TINY / "config.json").read_bytes())
    with_bytes(folder / "tiny.gguf", folder / "changed.gguf", 3_000_000, b"X")
    with_bytes(folder / "tiny.gguf", folder / "infinite.gguf", -34, b"\0\x7c")
    (folder / "SUMS").write_text(f"{hashlib.sha256((folder / 'tiny.gguf').read_bytes()).hexdigest()}  changed.gguf\n")


def prepared(folder: Path) -> None:
    """tiny: the bundled checkpoint; tiny.gguf: in Q8_0; cut.gguf: its beginning; spoken.gguf: with a
    chat template, another one than speaking; texts, templates, odd folders."""
    (folder / "tiny").symlink_to(TINY)
    run(folder, "quantcli convert tiny -t Q8_0 -o tiny.gguf --quiet")
    (folder / "cut.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:200_000])
    (folder / "text.txt").write_text(TEXT)
    (folder / "short.txt").write_text("Once.")
    (folder / "broken.jinja").write_text("{% for m in messages %}\n{{ m.content }}{% end %}")
    (folder / "refusing.jinja").write_text("{{ raise_exception('Conversations must begin with a system message') }}")
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}"
    (checkpoint(folder / "speaking") / "chat_template.jinja").write_text(template)
    (folder / "spoken.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    run(folder, "quantcli convert tiny -t Q8_0 -o spoken.gguf --chat-template spoken.jinja --quiet")
    (folder / "model.bin").write_bytes(b"\x80\x02")
    (folder / "empty").mkdir()
    (folder / "unknown").mkdir()
    (folder / "unknown" / "config.json").write_text('{"architectures": ["NeverSeenForCausalLM"]}')
    (folder / "release.toml").write_text('source = "tiny"\noutput = "published"\ntypes = ["Q4_0", "Q8_0"]\n')
    (folder / "misspelt.toml").write_text('source = "tiny"\ntype = ["Q4_0"]\n')
    damaged(folder)


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    assert words[0] == "quantcli", line
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "quantcli", *words[1:]], cwd=folder, capture_output=True, text=True, env=environment
    )


def stable(text: str, command: str, folder: Path) -> str:
    text = text.replace(str(folder), "<folder>").replace("python -m quantcli", "quantcli")
    for pattern, instead in VOLATILE:
        text = pattern.sub(instead, text)
    if command in FIGURES:
        text = re.sub(r"[ \t]+", " ", re.sub(r"[+-]?\d+\.\d+", "<figure>", text))
    return "\n".join(line.rstrip() for line in text.splitlines())


def transcript(folder: Path, lines: list[str]) -> str:
    """The text of one file."""
    parts = []
    for line in lines:
        done, command = run(folder, line), [*shlex.split(line), ""][1]
        parts.append(f"$ {line}")
        for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            if text:
                parts += [f"--- {name}", stable(text, command, folder)]
        parts += [f"--- exit {done.returncode}", ""]
    return "\n".join(parts)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, tmp_path: Path) -> None:
    recorded = path.read_text(encoding="utf-8")
    prepared(tmp_path)
    found = transcript(tmp_path, [line[2:] for line in recorded.splitlines() if line.startswith("$ ")])
    if os.environ.get("QUANTCLI_TRANSCRIPTS") == "write":
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), "`make transcripts` writes what it is now"


def test_every_command_has_one_and_errors() -> None:
    from quantcli.cli.app import app

    recorded = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    assert {command.name for command in app.registered_commands} <= set(recorded)
    assert all("--- exit 0" in text for text in recorded.values())
    assert sum(len(re.findall(r"^--- exit [12]$", text, re.MULTILINE)) for text in recorded.values()) >= 10
