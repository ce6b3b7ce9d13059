"""Lists of checksums as sha256sum and others write them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from quantcli.errors import MalformedFile
from quantcli.output import checksums


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


@pytest.mark.parametrize("line", ["{0}  a\0.gguf", "\\{0}  \0", "SHA256 (a\0b) = {0}", "{0}  \0\n{0}  a.gguf"])
def test_a_name_that_no_file_can_have(tmp_path: Path, line: str) -> None:
    path = tmp_path / "SUMS"
    path.write_text(line.format("a" * 64) + "\n")
    with pytest.raises(MalformedFile, match="not a line of sha256sum") as caught:
        checksums.Checksums(path)
    assert caught.value.where == f"{path}: line 1"
    with pytest.raises(MalformedFile):
        checksums.add(path, {tmp_path / "b": "b" * 64})


@pytest.mark.parametrize("number", [*range(1, 32), 127])
def test_other_control_characters_are_of_names(tmp_path: Path, number: int) -> None:
    """Files may have them, and `sha256sum` writes them."""
    odd = tmp_path / f"a{chr(number)}b"
    odd.write_bytes(b"x")
    checksums.add(tmp_path / "SUMS", {odd: hashlib.sha256(b"x").hexdigest()})
    assert checksums.Checksums(tmp_path / "SUMS").find(odd) == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.gguf", "a.gguf"), ("./a.gguf", "a.gguf"), ("a.gguf", "../{folder}/a.gguf"), ("x/a.gguf", "x/a.gguf")],
)
@pytest.mark.parametrize("order", [0, 1], ids=["wrong first", "right first"])
def test_a_list_that_contradicts_itself(tmp_path: Path, first: str, second: str, order: int) -> None:
    """As sha256sum -c fails, whichever line comes first, however the file is spelt, also when it was moved."""
    file, sums = tmp_path / "a.gguf", [hashlib.sha256(b"x").hexdigest(), "0" * 64]
    file.write_bytes(b"x")
    names = first, second.format(folder=tmp_path.name)
    ordered = [sums[order], sums[1 - order]]
    lines = [f"{digest}  {name}\n" for digest, name in zip(ordered, names, strict=True)]
    path = tmp_path / "SUMS"
    path.write_text(f"# a comment\n{''.join(lines)}")
    with pytest.raises(MalformedFile, match="lines 2 and 3 contradict each other") as caught:
        checksums.Checksums(path).find(file)
    assert f"sha256sum {file}" in str(caught.value.hint)
    if sys.platform == "linux":
        assert subprocess.run(["sha256sum", "-c", "SUMS"], cwd=tmp_path, capture_output=True).returncode == 1
    path.write_text(f"{lines[0]}{ordered[0]}  {names[1]}\n")  # twice the same is no contradiction
    assert checksums.Checksums(path).find(file) == ordered[0]


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
