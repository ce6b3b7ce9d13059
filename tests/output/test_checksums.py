"""Lists of checksums as sha256sum and others write them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

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
