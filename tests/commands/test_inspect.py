"""Metadata that says nonsense, as `inspect` and `verify` show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.broken_files import ARCHITECTURE, ARRAY, FLOAT32, STRING, array, entry, gguf, row, text
from helpers.program import shell
from quantcli.commands import inspect
from quantcli.errors import MalformedFile

NAN = b"\0\0\xc0\x7f"
DATA = bytes(32)


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
