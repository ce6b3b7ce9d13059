"""Every checkpoint of the large oracle folders: what it becomes, and what the runner makes of it.

A checkpoint whose class no family declares yet is skipped, and so are logits of what the runner refuses by name.
Everything else has to be equal; what is known to differ stands in differences.tsv
with its reason.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import conversions, differences
from quantcli import container, families
from quantcli.errors import BadTokenizer, UnknownArchitecture, UnsupportedFile, UnsupportedGraph
from quantcli.families import load
from quantcli.model import Model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.sources.checkpoint import Checkpoint

SHARED = Path(os.environ.get("QUANTCLI_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
PACKS = ("arch-new", "arch-more")
NAMES = sorted(f"{pack}/{path.parent.name}" for pack in PACKS for path in (SHARED / pack).glob("*/expected.json"))
NOT_HERE = ("tokenizer.ggml.", "tokenizer.chat")  # entries of vocabularies have tests of their own
TOLERANCE = 1e-4  # of the reference's standard deviation, largest difference of any number


def loaded(name: str, monkeypatch: pytest.MonkeyPatch | None = None) -> Model:
    """The model; with placeholders for tokens where the vocabulary is not known yet (see the vocabularies' tests)."""
    checkpoint = Checkpoint(SHARED / name)
    try:
        return families.load_checkpoint(checkpoint)
    except UnknownArchitecture as error:
        pytest.skip(f"not declared: {error}")
    except (BadTokenizer, UnsupportedFile):
        if monkeypatch is None:
            raise

    def placeholders(checkpoint: Checkpoint, *, vocab_size: int, **unused: object) -> tuple[Any, list[str]]:
        return {"tokenizer.ggml.tokens": container.strings([f"<{i}>" for i in range(vocab_size)])}, []

    monkeypatch.setattr(load.vocab, "load", placeholders)
    return families.load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_converts_as_llama_cpp(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, model = conversions.expected(shared / name), loaded(name, monkeypatch)
    found = [*conversions.tensor_differences(model, record)]
    found += conversions.metadata_differences(model, record, below=NOT_HERE)
    known = [key for key in differences.parts(name, "entry") if not key.startswith(NOT_HERE)]
    wrong = [line for line in found if not line.startswith(tuple(known))]
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(known), "strike what agrees from differences.tsv"


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_computes_as_the_reference(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shared / name / "logits.npz").exists():
        pytest.skip("no reference is recorded")
    model = loaded(name, monkeypatch)
    with numpy.load(shared / name / "logits.npz") as oracle:
        if "decoder_ids_a" in oracle:
            pytest.skip("encoder-decoders have tests of their own")
        for part in "ab":
            ids, states = oracle[f"ids_{part}"], f"logits_{part}" not in oracle
            try:
                network = Network(model, make_operations("float", 1), kv_type="F32", length=len(ids))
            except (UnsupportedGraph, UnknownArchitecture) as error:
                pytest.skip(f"not in the runner: {error}")
            if states:
                found, wanted = network.states(ids[None])[0], oracle[f"hidden_{part}"]
            else:
                found = network.forward(ids[None], network.new_cache(1, len(ids)))[0][oracle[f"pos_{part}"]]
                wanted = oracle[f"logits_{part}"]
            wanted = wanted[:, : found.shape[1]]  # rows beyond the tokenizer's tokens may be cut off
            worst = numpy.abs(found - wanted).max() / wanted.std()
            tolerance = differences.tolerance(name, TOLERANCE)
            if tolerance is None:
                assert worst > TOLERANCE, f"text {part} agrees: strike its row from differences.tsv"
            else:
                assert worst < tolerance, f"text {part} is off by {worst:.1e} of the spread"
