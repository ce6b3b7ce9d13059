"""The tokenizer files of a checkpoint, read with their types checked: everything behind this trusts its input."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import add
from pathlib import Path
from typing import Protocol, TypeGuard, TypeVar, cast

from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import object_in
from quantcli.vocab.token_table import first_duplicate

_READ_AS_THEY_ARE = ("TokenizersBackend", "PreTrainedTokenizerFast")  # classes that take tokenizer.json whole
_MAX_ID = 1 << 40  # ids are only compared, never used as a size; this bounds what is printed


class Folder(Protocol):
    """What a vocabulary needs of a checkpoint: its small files by name, None where one is missing."""

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> Mapping[str, object]: ...

    def bytes(self, name: str) -> bytes | None: ...

    def text(self, name: str) -> str | None: ...

    def json(self, name: str) -> object: ...


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

    tokenizer: dict[str, object] | None
    config: dict[str, object]
    special_map: dict[str, object]
    model_config: Mapping[str, object]
    added: list[AddedToken] = field(default_factory=list)
    listed: list[AddedToken] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> dict[str, object]:
        """The ``model`` object of tokenizer.json ({} where there is none)."""
        return object_in(self.tokenizer, "model")

    def token_content(self, kind: str) -> str | None:
        """Text of the special token ``kind`` ("bos", "eos", ...) as tokenizer_config.json names it."""
        entry = (self.config or self.special_map).get(f"{kind}_token")
        if isinstance(entry, dict):
            entry = entry.get("content")
        return entry if isinstance(entry, str) else None


def read(checkpoint: Folder) -> TokenizerFiles:
    """Read all JSON files that say something about the vocabulary."""
    tokenizer = json_object(checkpoint, "tokenizer.json")
    files = TokenizerFiles(
        tokenizer=tokenizer or None,
        config=json_object(checkpoint, "tokenizer_config.json"),
        special_map=json_object(checkpoint, "special_tokens_map.json"),
        model_config=checkpoint.config,
    )
    if tokenizer and not isinstance(tokenizer.get("model"), dict):
        raise BadTokenizer("there is no object `model`", where="tokenizer.json")
    place = "tokenizer_config.json: added_tokens_decoder"
    listed = expect(files.config.get("added_tokens_decoder") or {}, dict, place)
    files.listed = [_listed_token(key, entry, place) for key, entry in listed.items()]
    if tokenizer:
        files.added = _added_tokens(files)
    files.texts = {
        text: _token_id(index, f"added_tokens.json: {text[:60]!r}")
        for text, index in json_object(checkpoint, "added_tokens.json").items()
    }
    return files


def _added_tokens(files: TokenizerFiles) -> list[AddedToken]:
    """``added_tokens`` of tokenizer.json, one for each text; what the vocabulary holds already has the vocabulary's id.

    So does Hugging Face's library read such a token, or leaves it out where a class of its own builds the tokenizer
    from the vocabulary and the tokens of tokenizer_config.json.
    """
    where = "tokenizer.json: added_tokens"
    entries = expect((files.tokenizer or {}).get("added_tokens") or [], list, where)
    vocab = object_in(files.model, "vocab")
    left_out = bool(files.listed) and files.config.get("tokenizer_class") not in _READ_AS_THEY_ARE
    listed = {token.content for token in files.listed}
    owners: dict[int, str] = {}
    found: dict[str, AddedToken] = {}
    for number, entry in enumerate(entries):
        token = _added_token(entry, f"{where}[{number}]")
        if owners.setdefault(token.id, token.content) != token.content:
            raise BadTokenizer(f"two added tokens have the id {token.id}", where=where)
        home = vocab.get(token.content)
        if type(home) is int and home != token.id:
            if left_out and token.content not in listed:
                continue
            token = replace(token, id=_token_id(home, where))
        first = found.setdefault(token.content, token).id
        if first != token.id:
            raise BadTokenizer(
                f"the added token {token.content[:60]!r} has the ids {first} and {token.id}", where=where
            )
        found[token.content] = token
    return list(found.values())


def json_object(checkpoint: Folder, name: str) -> dict[str, object]:
    """A JSON file that must hold an object; {} where it is missing."""
    value = checkpoint.json(name)
    return {} if value is None else expect(value, dict, name)


_Json = TypeVar("_Json", dict[str, object], list[object], str, int)


def expect(value: object, wanted: type[_Json], where: str) -> _Json:
    """``value``, which must be of this type. Raises BadTokenizer."""
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise BadTokenizer(f"expected {_NAMES[wanted]}, found {_show(value)}", where=where)
    return value


def flat_steps(tokenizer: Mapping[str, object] | None, name: str, key: str) -> list[Mapping[str, object]]:
    """The steps of a normalizer, pre-tokenizer or post-processor (``name``) of tokenizer.json.

    Sequences hold their steps under ``key``; nested ones are taken apart.
    """
    return _leaves((tokenizer or {}).get(name), key, 0)


def _leaves(step: object, key: str, depth: int) -> list[Mapping[str, object]]:
    if not isinstance(step, dict):
        return []
    if step.get("type") != "Sequence" or depth > 16:
        return [step]
    inner = step.get(key)
    return [leaf for part in (inner if isinstance(inner, list) else []) for leaf in _leaves(part, key, depth + 1)]


_NAMES: Mapping[type, str] = {dict: "an object", list: "an array", str: "a text", int: "an integer"}


def _show(value: object) -> str:
    """A JSON value in a few words."""
    text = _NAMES.get(type(value)) if isinstance(value, (dict, list)) else repr(value)
    return text if text is not None and len(text) < 60 else f"{str(text)[:57]}..."


def _token_id(value: object, where: str) -> int:
    """A token id: a whole number that is not negative and not absurd."""
    index = expect(value, int, where)
    if not 0 <= index < _MAX_ID:
        raise BadTokenizer(f"{index if abs(index) < _MAX_ID else 'a huge number'} is no token id", where=where)
    return index


def _added_token(entry: object, where: str) -> AddedToken:
    token = expect(entry, dict, where)
    return AddedToken(
        id=_token_id(token.get("id"), f"{where}.id"),
        content=expect(token.get("content"), str, f"{where}.content"),
        special=token.get("special") is True,
        normalized=token.get("normalized") is True,
    )


def _listed_token(key: str, entry: object, where: str) -> AddedToken:
    where = f"{where}[{key[:20]!r}]"
    if not (key.isascii() and key.isdigit() and len(key) < 16):
        raise BadTokenizer("the key is no token id", where=where)
    return _added_token({**expect(entry, dict, where), "id": int(key)}, where)


def vocabulary(model: Mapping[str, object], where: str) -> dict[str, int]:
    """``model.vocab`` of a BPE or WordPiece tokenizer.json: text -> id, every id once."""
    entries = expect(model.get("vocab"), dict, where)
    vocab = cast(dict[str, int], entries)  # looked at as a whole, for there may be a million
    ids = vocab.values()
    if set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= _MAX_ID:
        for text, index in entries.items():
            _token_id(index, f"{where}[{text[:60]!r}]")
    twice = first_duplicate(vocab.values()) if len(set(vocab.values())) != len(vocab) else None
    if twice is not None:
        texts = [text[:60] for text, index in vocab.items() if index == twice]
        raise BadTokenizer(f"id {twice} belongs to two tokens, {texts[0]!r} and {texts[1]!r}", where=where)
    return vocab


def merge_pairs(model: Mapping[str, object], where: str) -> list[tuple[str, str]]:
    """``model.merges`` in either spelling: ``["left", "right"]`` or ``"left right"``."""
    entries = expect(model.get("merges") or [], list, where)
    sides = [entry.split(" ") if type(entry) is str else entry for entry in entries]
    if _are_pairs(sides):
        return [(left, right) for left, right in sides]
    return [merge_pair(entry, index, where) for index, entry in enumerate(entries)]


def merge_pair(entry: object, index: int, where: str) -> tuple[str, str]:
    """Both sides of merge ``index``."""
    sides = entry.split(" ") if isinstance(entry, str) else entry
    if _is_pair(sides):
        return sides[0], sides[1]
    raise BadTokenizer(f"merge {index} is no pair of texts: {_show(sides)}", where=where)


def _are_pairs(sides: list[object]) -> TypeGuard[list[list[str]]]:
    """Whether `_is_pair` is true of each: there may be a million, so nothing is called for one of them."""
    if not set(map(type, sides)) <= {list}:
        return False
    lists = cast(list[list[object]], sides)
    texts = set(map(type, chain.from_iterable(lists))) <= {str} and set(map(len, lists)) <= {2}
    return texts and all(map(all, lists))


def _is_pair(sides: object) -> TypeGuard[list[str]]:
    return (
        isinstance(sides, list)
        and len(sides) == 2
        and type(sides[0]) is str
        and type(sides[1]) is str
        and sides[0] != ""
        and sides[1] != ""
    )


def check_merges(merges: list[tuple[str, str]], known: Container[str], where: str) -> None:
    """A merge joins two tokens into a third one; all three must be there (Hugging Face refuses such files too)."""
    lefts, rights = [left for left, _ in merges], [right for _, right in merges]
    if all(all(map(known.__contains__, texts)) for texts in (lefts, rights, map(add, lefts, rights))):
        return
    for index, (left, right) in enumerate(merges):
        for text in (left, right, left + right):
            if text not in known:
                raise BadTokenizer(
                    f"merge {index} ({left[:40]!r} + {right[:40]!r}) needs the token {text[:80]!r}, which is not there",
                    where=where,
                    hint="the vocabulary and the merges do not belong together; download the tokenizer files again",
                )
