"""Every checkpoint of the large oracle folders: what it becomes, and what the runner makes of it.

A checkpoint whose class no family declares yet is skipped, and so are logits of what the runner refuses by name.
Everything else has to be equal; what is known to differ stands in a table with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import conversions
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
#: references that are further off themselves
COARSE: Mapping[str, float] = {
    "arch-more/codeshell": 2e-3,  # of llama.cpp, whose GELU is a table in F16
    "arch-more/grok2": 2e-3,  # the same
    "arch-more/dbrx": 2e-3,  # one unit in the last place does it: the stream is 100 +- 2 before its layer norms
    "arch-new/jina-bert-v2": 4e-3,  # the same
    "arch-more/nomic-bert-moe": 4e-3,  # the same
    "arch-more/qwen2.5-omni": 5e-4,  # of llama.cpp, which does not read the epsilon of qwen2vl and takes 0
    "arch-new/glm": 5e-4,  # of transformers: llama.cpp's converter writes another epsilon
}

#: entries beyond the record, where the recorded file is at fault
ADDED: Mapping[str, tuple[str, ...]] = {
    # llama.cpp's loader wants this one, its converter writes the other one
    "arch-new/exaone3.5": ("exaone.attention.layer_norm_rms_epsilon",),
}
#: logits that differ from the record: there the file runs as llama.cpp runs it, the record is of transformers
COMPUTED_OTHERWISE: Mapping[str, str] = {
    "arch-new/exaone4": "llama.cpp uses windows with 64 layers only",
    "arch-more/bamba": "the converter turns the rows of whole heads, of which a part rotates",
    "arch-new/rwkv7": "recorded by a kernel of llama.cpp that reads 64 elements of these heads of 32",
    "arch-new/phi-moe": "llama.cpp routes by softmax, not by sparsemixer",
    "arch-more/glm4-moe-lite": "llama.cpp guesses the router's function from the number of layers",
    "arch-more/mellum2": "llama.cpp rotates layers with a window by the base of the others",
}
#: declared, and not right yet
PENDING: Mapping[str, str] = {
    "arch-more/nomic-bert-moe": "its experts",
}


def loaded(name: str, monkeypatch: pytest.MonkeyPatch | None = None) -> Model:
    """The model; with placeholders for tokens where the vocabulary is not known yet (see the vocabularies' tests)."""
    checkpoint = Checkpoint(SHARED / name)
    if name in PENDING:
        pytest.skip(f"to be done: {PENDING[name]}")
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
    found += conversions.metadata_differences(model, record, below=(*NOT_HERE, *ADDED.get(name, ())))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", NAMES or ["none"])
def test_computes_as_the_reference(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in COMPUTED_OTHERWISE:
        pytest.skip(COMPUTED_OTHERWISE[name])
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
            assert worst < COARSE.get(name, TOLERANCE), f"text {part} is off by {worst:.1e} of the spread"
