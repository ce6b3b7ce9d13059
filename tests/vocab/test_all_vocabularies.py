"""The vocabularies of all oracle checkpoints: entries as llama.cpp's converter wrote them, ids as Hugging Face's.

The files come from the pack in ``tests/oracles``; that it is the oracle folder's is a test of its own.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers import oracles
from helpers.vocabularies import differences, named, recorded
from quantcli.container import Value
from quantcli.errors import BadConfig, UnknownArchitecture
from quantcli.families import load, metadata
from quantcli.families.naming import title
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab.tokenizer import Tokenizer

NAMES = sorted({"/".join(file.split("/")[:2]) for file in oracles.vocabulary_files()})
COMPOSED = "caf\u00e9 vs cafe\u0301 and \u00c5 vs \u212b"  # llama.cpp has no NFC step

#: entries that differ from the record, and why ours are right
OTHER_ENTRIES: Mapping[str, tuple[str, str]] = {
    "arch-more/deci-nas": ("tokenizer.ggml.scores", "recorded as -1000 everywhere, which loses the order of merges"),
    "arch-more/xverse": ("tokenizer.ggml.scores", "not recorded, which loses the order of merges"),
}
#: texts whose ids differ from the record, by a part of the text
OTHER_IDS: Mapping[str, tuple[str, str]] = {
    "arch-new/xlm-roberta": ("<mask>", "the recorded tokens have none: llama.cpp drops it with the SentencePiece file"),
    "arch-new/bge-reranker-xlmr": ("<mask>", "the same"),
    "arch-new/phi-moe": ("<|user|>", "llama.cpp drops blanks behind it for models named phi-3 only"),
}


def vocabulary(name: str) -> dict[str, Value]:
    """All ``tokenizer.*`` entries that a conversion writes."""
    checkpoint = Checkpoint(oracles.vocabularies()[name])
    try:
        family, facts, _ = load.read_config(checkpoint, None)
    except (UnknownArchitecture, BadConfig) as error:
        pytest.skip(f"not declared: {error}")
    stated = metadata.architecture(family, facts)
    own = {key: value for key, value in stated.items() if key.startswith("tokenizer.")}
    return own | load.vocabulary(checkpoint, family, facts)[0]


@pytest.mark.parametrize("name", NAMES)
def test_entries(name: str) -> None:
    wrong = differences(vocabulary(name), recorded(oracles.vocabularies()[name]), families=True)
    ours, _ = OTHER_ENTRIES.get(name, ("", ""))
    assert [line for line in wrong if not (ours and line.startswith(ours))] == []


@pytest.mark.parametrize("name", NAMES)
def test_ids(name: str) -> None:
    path = oracles.vocabularies()[name] / "tokens.json"
    if not path.exists():
        pytest.skip("there is no tokenizer.json that could give ids")
    entries = vocabulary(name)
    tokenizer = Tokenizer.from_metadata(named(entries, title(path.parent.name)))  # llama.cpp goes by it at times
    composes = '"NFC"' in (path.parent / "tokenizer.json").read_text(encoding="utf-8")
    part, _ = OTHER_IDS.get(name, ("", ""))
    vectors = json.loads(path.read_text(encoding="utf-8"))["vectors"]
    assert len(vectors) >= 30
    for vector in vectors:
        text = vector["text"]
        if (composes and text == COMPOSED) or (part and part in text):
            continue
        assert tokenizer.encode(text, add_special=False, parse_special=True) == vector["ids"], text
        assert tokenizer.encode(text, add_special=True, parse_special=True) == vector["ids_special"], text


def test_the_pack_is_that_of_the_oracle_folder(shared: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "pack_vocabularies.py"
    spec = importlib.util.spec_from_file_location("pack_vocabularies", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.files(shared) == oracles.vocabulary_files()
    assert oracles.VOCABULARIES.stat().st_size < 200_000
