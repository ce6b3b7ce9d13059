"""Byte-level BPE (GPT-2 style): tokenizer.json, or vocab.json with merges.txt, becomes a ``gpt2`` vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from quantcli.errors import BadTokenizer
from quantcli.vocab import added, pretokenizers, structure
from quantcli.vocab.hints import VocabHints
from quantcli.vocab.token_table import MAX_TOKENS, Table, TokenType, added_kind
from quantcli.vocab.tokenizer_files import (
    AddedToken,
    Folder,
    TokenizerFiles,
    check_merges,
    json_object,
    merge_pair,
    merge_pairs,
    vocabulary,
)


@cache
def byte_to_character() -> Mapping[int, str]:
    """GPT-2's table: printable Latin-1 bytes stand for themselves, the other 68 are moved to U+0100 and up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(plain)]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(0x100 + i) for i, byte in enumerate(moved)}}


@cache
def character_to_byte() -> Mapping[str, int]:
    return {character: byte for byte, character in byte_to_character().items()}


def load(checkpoint: Folder, size: int | None, files: TokenizerFiles) -> tuple[Table, list[str]]:
    """The table and the merges as ``left right`` texts."""
    where = "tokenizer.json" if files.tokenizer else "vocab.json"
    table = Table(size, where)
    vocab, merges, merges_where = _base(checkpoint, files)
    limit = MAX_TOKENS if size is None else size
    if vocab and max(vocab.values()) >= limit:
        text, index = next(one for one in vocab.items() if one[1] >= limit)
        raise BadTokenizer(
            f"token {text[:60]!r} has the id {index:,}, but the model has {limit:,} embedding rows",
            where=f"{where}: vocab",
            hint="vocab_size in config.json and the tokenizer do not belong together",
        )
    tokens = added.settled(files, vocab)
    known = {token.content for token in tokens}
    check_merges(merges, vocab.keys() | known, merges_where)
    table.put_all(vocab, 0.0, TokenType.NORMAL)
    for token in tokens:
        text, kind = added_kind(_stored_text(token), token.special)
        table.put(token.id, text, 0.0, kind)
    return table, _joined(merges)


def _base(checkpoint: Folder, files: TokenizerFiles) -> tuple[dict[str, int], list[tuple[str, str]], str]:
    """Vocabulary without added tokens, merges, and where the merges come from."""
    if files.tokenizer:
        vocab = vocabulary(files.model, "tokenizer.json: model.vocab")
        merges = merge_pairs(files.model, "tokenizer.json: model.merges")
        if merges:
            return vocab, merges, "tokenizer.json: model.merges"
    else:
        vocab = vocabulary({"vocab": json_object(checkpoint, "vocab.json")}, "vocab.json")
    return vocab, _read_merges(checkpoint.text("merges.txt") or ""), "merges.txt"


def _read_merges(text: str) -> list[tuple[str, str]]:
    """merges.txt: a pair a line, a first line ``#version`` skipped."""
    lines = text.split("\n")
    start = 1 if lines[0].startswith("#version") else 0
    return [merge_pair(line.rstrip("\r"), i, "merges.txt") for i, line in enumerate(lines[start:]) if line.strip()]


def _stored_text(token: AddedToken) -> str:
    """Text of an added token as llama.cpp matches it: one that is spelt in GPT-2's byte alphabet is decoded."""
    table = character_to_byte()
    if token.normalized or token.content.isascii() or not all(c in table for c in token.content):
        return token.content
    try:
        return bytes(table[c] for c in token.content).decode("utf-8")
    except UnicodeDecodeError:
        return token.content


def _joined(merges: list[tuple[str, str]]) -> list[str]:
    """Both sides of every merge; a blank inside would end one, so it is written as U+0120."""
    joined = list(map(" ".join, merges))
    if "".join(joined).count(" ") == len(joined):
        return joined
    return [" ".join(side.replace(" ", "\u0120") for side in pair) for pair in merges]


def pre_tokenizer(files: TokenizerFiles, hints: VocabHints, given: str | None) -> tuple[str, list[str]]:
    """The name for ``tokenizer.ggml.pre`` and notes."""
    if given is not None:
        return structure.check_name(given), []
    if files.tokenizer:
        found = structure.read(files)
        return structure.recognise(found, hints.architecture, hints.pre), found.notes
    name = pretokenizers.CLASSES.get(str(files.config.get("tokenizer_class")))
    if name is None:
        raise structure.unknown(structure.Structure((), (), False))
    return name, []
