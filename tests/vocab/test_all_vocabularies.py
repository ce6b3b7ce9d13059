"""The vocabularies of all oracle checkpoints: entries as llama.cpp's converter wrote them, ids as Hugging Face's.

The files come from the pack in ``tests/oracles``; that it is the oracle folder's is a test of its own.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from helpers import differences as known
from helpers import oracles
from helpers.vocabularies import differences, family_entries, load, named, recorded, wrong_ids
from quantcli.vocab.tokenizer import Tokenizer

NAMES = sorted({"/".join(file.split("/")[:2]) for file in oracles.vocabulary_files()})


@pytest.mark.parametrize("name", NAMES)
def test_entries(name: str) -> None:
    folder = oracles.vocabularies()[name]
    found = family_entries(folder) | load(folder)[0]
    wrong = differences(found, recorded(folder), own=True)
    entries = tuple(key for key in known.parts(name, "entry") if key.startswith("tokenizer."))
    assert [line for line in wrong if not line.startswith(entries)] == []
    assert len(wrong) == len(entries), "strike what agrees from differences.tsv"


@pytest.mark.parametrize("name", NAMES)
def test_ids(name: str) -> None:
    folder = oracles.vocabularies()[name]
    if not (folder / "tokens.json").exists():
        pytest.skip("there is no tokenizer.json that could give ids")
    assert wrong_ids(folder) == []


@pytest.mark.parametrize("name", [name for name in NAMES if "tokenizer.ggml.scores" in known.parts(name, "entry")])
def test_recorded_scores_give_other_ids(name: str) -> None:
    """Why ours are written: with the recorded ones (one score for all, or none) texts have other ids."""
    metadata = named(load(folder := oracles.vocabularies()[name])[0], name)
    scores = metadata["tokenizer.ggml.scores"]
    flat = metadata | {"tokenizer.ggml.scores": replace(scores, data=numpy.zeros_like(scores.data))}
    vectors = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["vectors"]
    tokenizer = Tokenizer.from_metadata(flat)
    other = [
        vector["text"]
        for vector in vectors
        if tokenizer.encode(vector["text"], add_special=False, parse_special=True) != vector["ids"]
    ]
    assert other and not wrong_ids(folder)
    (row,) = known.of(name, "entry")
    assert row.reason.endswith(f"{len(other)} of {len(vectors)} texts get other ids")


def test_the_pack_is_that_of_the_oracle_folder(shared: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "pack_vocabularies.py"
    spec = importlib.util.spec_from_file_location("pack_vocabularies", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.files(shared) == oracles.vocabulary_files()
    assert oracles.VOCABULARIES.stat().st_size < 200_000
