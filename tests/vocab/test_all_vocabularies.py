"""The vocabularies of all oracle checkpoints: entries as llama.cpp's converter wrote them, ids as Hugging Face's.

The files come from the pack in ``tests/oracles``; that it is the oracle folder's is a test of its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from helpers import oracles
from helpers.vocabularies import OTHER_ENTRIES, differences, family_entries, load, recorded, wrong_ids

NAMES = sorted({"/".join(file.split("/")[:2]) for file in oracles.vocabulary_files()})


@pytest.mark.parametrize("name", NAMES)
def test_entries(name: str) -> None:
    folder = oracles.vocabularies()[name]
    found = family_entries(folder) | load(folder)[0]
    ours, _ = OTHER_ENTRIES.get(folder.name, ("", ""))
    wrong = differences(found, recorded(folder), own=True)
    assert [line for line in wrong if not (ours and line.startswith(ours))] == []


@pytest.mark.parametrize("name", NAMES)
def test_ids(name: str) -> None:
    folder = oracles.vocabularies()[name]
    if not (folder / "tokens.json").exists():
        pytest.skip("there is no tokenizer.json that could give ids")
    assert wrong_ids(folder) == []


def test_the_pack_is_that_of_the_oracle_folder(shared: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "pack_vocabularies.py"
    spec = importlib.util.spec_from_file_location("pack_vocabularies", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.files(shared) == oracles.vocabulary_files()
    assert oracles.VOCABULARIES.stat().st_size < 200_000
