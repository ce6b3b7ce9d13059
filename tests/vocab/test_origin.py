"""What tells vocabularies apart without reading them: of every file that one is made from, and of the user's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import oracles
from quantcli.families import load
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab import origin

NAMES = sorted({"/".join(file.split("/")[:2]) for file in oracles.vocabulary_files()})


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_is_read_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    original = Checkpoint.bytes
    folder = oracles.vocabularies()[name]
    checkpoint = Checkpoint(folder)
    family, facts, _ = load.read_config(checkpoint, None)  # config.json, and what becomes metadata of the model's
    monkeypatch.setattr(Checkpoint, "bytes", lambda self, name: asked.add(name) or original(self, name))
    load.vocabulary(checkpoint, family, facts)
    read = {one for one in asked if (folder / one).is_file()}
    asked.clear()
    origin.digest(checkpoint, checkpoint.digests(), ())
    assert read and read <= asked


def test_what_cannot_be_read_is_no_error_here(tmp_path: Path) -> None:
    """It may not be needed."""
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint(tmp_path)
    before = origin.digest(checkpoint, checkpoint.digests(), (None,))
    with open(tmp_path / "large.tiktoken", "wb") as file:
        file.truncate(1 << 40)
    assert before != origin.digest(checkpoint, checkpoint.digests(), (None,))
