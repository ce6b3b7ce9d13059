"""What the tests of the vocabularies share: hints per family, comparison with recorded entries, made-up tokenizers."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy

from helpers import differences as known
from quantcli.container import Strings, Value, string
from quantcli.families import load as family_loader
from quantcli.families import metadata as family_metadata
from quantcli.families.naming import title
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab import VocabHints
from quantcli.vocab.bytelevel import byte_to_character
from quantcli.vocab.tokenizer import Tokenizer

LLAMA_CLASS = ("llama", "granite", "granitemoe", "smollm3")
OF_FAMILIES = {"tokenizer.ggml.token_type_count"}  # written by the family, tested with it
OWN_HINTS: dict[str, dict[str, Any]] = {
    "gemma": {"space_prefix": False, "ids": {"eot": 107}},
    "gemma2": {"space_prefix": False},
    "gemma3": {"space_prefix": False},
    "nemotron": {"ids": {"padding": 0, "unknown": 1}},
    "glm4": {
        "fallbacks": {"eos": "<|endoftext|>", "bos": "<|endoftext|>", "unknown": "<|endoftext|>", "eot": "<|user|>"}
    },
    "phi2": {"add_bos": False},
    "t5": {"kind": "t5"},
}


def hints(architecture: str) -> VocabHints:
    """What the family of this GGUF architecture says."""
    own = OWN_HINTS.get(architecture, {})
    return VocabHints(architecture, prefix_from_config=architecture in LLAMA_CLASS, **own)


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Metadata entries of expected.json."""
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))["metadata"]


def load(folder: Path) -> tuple[dict[str, Value], list[str]]:
    """The vocabulary of a checkpoint as its family reads it. Raises what ``families.load`` raises."""
    checkpoint = Checkpoint(folder)
    family, facts, _ = family_loader.read_config(checkpoint, None)
    return family_loader.vocabulary(checkpoint, family, facts)


def family_entries(folder: Path) -> dict[str, Value]:
    """What the family itself says of its tokenizer."""
    family, facts, _ = family_loader.read_config(Checkpoint(folder), None)
    stated = family_metadata.architecture(family, facts)
    return {key: value for key, value in stated.items() if key.startswith("tokenizer.")}


def wrong_ids(folder: Path) -> list[str]:
    """Texts of tokens.json whose ids are others, with or without special tokens; what is known to differ is left out.

    llama.cpp composes no text: where the tokenizer does (NFC), decomposed text has other ids.
    """
    tokenizer = Tokenizer.from_metadata(named(load(folder)[0], title(folder.name)))  # llama.cpp goes by it at times
    composes = '"NFC"' in (folder / "tokenizer.json").read_text(encoding="utf-8")
    apart = known.parts(folder.name, "ids")
    vectors = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["vectors"]
    assert len(vectors) >= 30
    return [
        vector["text"]
        for vector in vectors
        if not (composes and unicodedata.normalize("NFC", vector["text"]) != vector["text"])
        and not any(part in vector["text"] for part in apart)
        and [tokenizer.encode(vector["text"], add_special=special, parse_special=True) for special in (False, True)]
        != [vector["ids"], vector["ids_special"]]
    ]


def entry(value: Value) -> dict[str, Any]:
    """A value in the form of expected.json: type and value, or the hash of an array."""
    if value.element is None:
        return {"type": value.type.name, "value": value.data}
    form: dict[str, Any] = {"type": f"ARRAY:{value.element.name}", "len": len(value.data)}
    if value.element.name.startswith("FLOAT"):
        form["sha256_f32le"] = hashlib.sha256(value.data.astype("<f4").tobytes()).hexdigest()
    else:
        items = list(value.data) if isinstance(value.data, Strings) else value.data.tolist()
        text = json.dumps(items, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        form["sha256_json"] = hashlib.sha256(text.encode()).hexdigest()
    return form


def differences(metadata: dict[str, Value], entries: dict[str, dict[str, Any]], *, own: bool = False) -> list[str]:
    """Keys of tokenizer.* that are missing, extra or other than recorded; ``own``: also what the family writes."""
    left_out = set() if own else OF_FAMILIES
    wanted = {key: value for key, value in entries.items() if key.startswith("tokenizer.") and key not in left_out}
    wrong = [f"{key} is missing" for key in wanted if key not in metadata]
    wrong += [f"{key} is extra" for key in metadata if key not in wanted]
    for key in wanted.keys() & metadata.keys():
        found = entry(metadata[key])
        if found != {name: wanted[key].get(name) for name in found}:
            wrong.append(f"{key}: {found}, recorded {wanted[key]}")
    return wrong


def byte_level(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of GPT-2's kind: the 256 bytes, two merges, one special token; ``changes`` replace parts.

    ``vocab``, ``merges`` and ``ignore_merges`` go into the model, all else to the top level.
    """
    table = {character: index for index, character in enumerate(byte_to_character().values())}
    vocabulary = table | {"he": 256, "hel": 257}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [["h", "e"], ["he", "l"]], "ignore_merges": False}
    model |= {key: changes.pop(key) for key in ("vocab", "merges", "ignore_merges", "type") if key in changes}
    return {
        "added_tokens": [{"id": 258, "content": "<|end|>", "special": True, "normalized": False}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": None,
        "model": model,
    } | changes


def folder_of(path: Path, **files: Any) -> Checkpoint:
    """A checkpoint with these files: ``tokenizer_json={...}`` writes tokenizer.json; bytes and texts stay."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in {"config_json": {}, **files}.items():
        stem, _, suffix = name.rpartition("_")
        data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
        (path / f"{stem}.{suffix}").write_bytes(json.dumps(content).encode() if data is None else data)
    return Checkpoint(path)


def named(metadata: dict[str, Value], name: str) -> dict[str, Value]:
    """Metadata with a model name, as a file has it."""
    return {"general.name": string(name), **metadata}


def types_of(metadata: dict[str, Value]) -> list[int]:
    found = metadata["tokenizer.ggml.token_type"].data
    assert isinstance(found, numpy.ndarray)
    return found.tolist()
