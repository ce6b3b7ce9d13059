"""The tokenizer files of a checkpoint, read with their types checked: everything behind this trusts its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantcli.errors import BadTokenizer
from quantcli.vocab.table import first_duplicate

MAX_ID = 1 << 40  # ids are only compared, never used as a size; this bounds what is printed


@dataclass(frozen=True, slots=True)
class AddedToken:
    """One entry of ``added_tokens`` (tokenizer.json) or ``added_tokens_decoder`` (tokenizer_config.json)."""

    id: int
    content: str
    special: bool
    normalized: bool


@dataclass(slots=True)
class TokenizerFiles:
    """What the JSON files say. ``tokenizer`` is tokenizer.json or None, the others are empty where a file is missing.

    ``added`` comes from tokenizer.json, ``listed`` from tokenizer_config.json, ``texts`` from added_tokens.json.
    """

    tokenizer: dict[str, Any] | None
    config: dict[str, Any]
    special_map: dict[str, Any]
    model_config: dict[str, Any]
    added: list[AddedToken] = field(default_factory=list)
    listed: list[AddedToken] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> dict[str, Any]:
        """The ``model`` object of tokenizer.json ({} where there is none)."""
        return (self.tokenizer or {}).get("model") or {}

    def token_content(self, kind: str) -> str | None:
        """Text of the special token ``kind`` ("bos", "eos", ...) as tokenizer_config.json names it."""
        entry = (self.config or self.special_map).get(f"{kind}_token")
        if isinstance(entry, dict):
            entry = entry.get("content")
        return entry if isinstance(entry, str) else None


def read(checkpoint: Any) -> TokenizerFiles:
    """Read all JSON files that say something about the vocabulary (``checkpoint`` is a sources.Checkpoint)."""
    tokenizer = json_object(checkpoint, "tokenizer.json")
    files = TokenizerFiles(
        tokenizer=tokenizer or None,
        config=json_object(checkpoint, "tokenizer_config.json"),
        special_map=json_object(checkpoint, "special_tokens_map.json"),
        model_config=checkpoint.config,
    )
    if tokenizer:
        if not isinstance(tokenizer.get("model"), dict):
            raise BadTokenizer("there is no object `model`", where="tokenizer.json")
        entries = expect(tokenizer.get("added_tokens") or [], list, "tokenizer.json: added_tokens")
        files.added = [added_token(entry, f"tokenizer.json: added_tokens[{i}]") for i, entry in enumerate(entries)]
        twice = first_duplicate(token.id for token in files.added)
        if twice is not None:
            raise BadTokenizer(f"two added tokens have the id {twice}", where="tokenizer.json: added_tokens")
    place = "tokenizer_config.json: added_tokens_decoder"
    listed = expect(files.config.get("added_tokens_decoder") or {}, dict, place)
    files.listed = [listed_token(key, entry, place) for key, entry in listed.items()]
    files.texts = {
        text: token_id(index, f"added_tokens.json: {text[:60]!r}")
        for text, index in json_object(checkpoint, "added_tokens.json").items()
    }
    return files


def json_object(checkpoint: Any, name: str) -> dict[str, Any]:
    """A JSON file that must hold an object; {} where it is missing."""
    value = checkpoint.json(name)
    return {} if value is None else expect(value, dict, name)


def expect(value: Any, kind: type, where: str) -> Any:
    """``value``, which must be of this type."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadTokenizer(f"expected {NAMES[kind]}, found {show(value)}", where=where)
    return value


NAMES: Mapping[type, str] = {dict: "an object", list: "an array", str: "a text", int: "an integer"}


def show(value: Any) -> str:
    """A JSON value in a few words."""
    text = NAMES.get(type(value)) if isinstance(value, (dict, list)) else repr(value)
    return text if text is not None and len(text) < 60 else f"{str(text)[:57]}..."


def token_id(value: Any, where: str) -> int:
    """A token id: a whole number that is not negative and not absurd."""
    index = expect(value, int, where)
    if not 0 <= index < MAX_ID:
        raise BadTokenizer(f"{index if abs(index) < MAX_ID else 'a huge number'} is no token id", where=where)
    return index


def added_token(entry: Any, where: str) -> AddedToken:
    entry = expect(entry, dict, where)
    return AddedToken(
        id=token_id(entry.get("id"), f"{where}.id"),
        content=expect(entry.get("content"), str, f"{where}.content"),
        special=entry.get("special") is True,
        normalized=entry.get("normalized") is True,
    )


def listed_token(key: str, entry: Any, where: str) -> AddedToken:
    where = f"{where}[{key[:20]!r}]"
    if not (key.isascii() and key.isdigit() and len(key) < 16):
        raise BadTokenizer("the key is no token id", where=where)
    return added_token({**expect(entry, dict, where), "id": int(key)}, where)


def vocabulary(model: Mapping[str, Any], where: str) -> dict[str, int]:
    """``model.vocab`` of a BPE or WordPiece tokenizer.json: text -> id, every id once."""
    vocab = expect(model.get("vocab"), dict, where)
    for text, index in vocab.items():
        if type(index) is not int or not 0 <= index < MAX_ID:
            token_id(index, f"{where}[{text[:60]!r}]")
    twice = first_duplicate(vocab.values()) if len(set(vocab.values())) != len(vocab) else None
    if twice is not None:
        texts = [text[:60] for text, index in vocab.items() if index == twice]
        raise BadTokenizer(f"id {twice} belongs to two tokens, {texts[0]!r} and {texts[1]!r}", where=where)
    return vocab


def merge_pairs(model: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """``model.merges`` in either spelling: ``["left", "right"]`` or ``"left right"``."""
    entries = expect(model.get("merges") or [], list, where)
    return [merge_pair(entry, index, where) for index, entry in enumerate(entries)]


def merge_pair(entry: Any, index: int, where: str) -> tuple[str, str]:
    if isinstance(entry, str):
        entry = entry.split(" ")
    if isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is str and type(entry[1]) is str and all(entry):
        return entry[0], entry[1]
    raise BadTokenizer(f"merge {index} is no pair of texts: {show(entry)}", where=where)


def check_merges(merges: list[tuple[str, str]], known: Callable[[str], bool], where: str) -> None:
    """A merge joins two tokens into a third one; all three must be there (Hugging Face refuses such files too)."""
    for index, (left, right) in enumerate(merges):
        for text in (left, right, left + right):
            if not known(text):
                raise BadTokenizer(
                    f"merge {index} ({left[:40]!r} + {right[:40]!r}) needs the token {text[:80]!r}, which is not there",
                    where=where,
                    hint="the vocabulary and the merges do not belong together; download the tokenizer files again",
                )
