"""RWKV's words, PLaMo 2's pieces, unigram models and their character maps: files that are right, odd and broken."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.vocabularies import folder_of, types_of
from quantcli import vocab
from quantcli.errors import BadTokenizer
from quantcli.vocab import VocabHints, rwkv
from quantcli.vocab.longest import WordPiece, Words
from quantcli.vocab.viterbi import CharacterMap, Plamo, Unigram


def load(path: Path, **files: Any) -> dict[str, Any]:
    return vocab.load(folder_of(path, **files), vocab_size=12, hints=VocabHints("llama"))[0]


def words(path: Path, content: str) -> dict[str, Any]:
    checkpoint = folder_of(path)
    (path / rwkv.FILE).write_text(content, encoding="utf-8")
    return vocab.load(checkpoint, vocab_size=300, hints=VocabHints("rwkv7"))[0]


def test_words(tmp_path: Path) -> None:
    metadata = words(tmp_path, "1 '\\x00' 1\n2 b'\\xe4\\xbd' 2\n3 \"it's\" 4\n\n4 '\\n\\n' 2\n5 'é' 2\n")
    texts = list(metadata["tokenizer.ggml.tokens"].data)
    assert texts[:7] == ["<s>", "\\x00", "\\xe4\\xbd", "it's", "\\n\\n", "\\xc3\\xa9", "[PAD6]"]
    assert metadata["tokenizer.ggml.eot_token_id"].data == 261
    assert "tokenizer.ggml.pre" not in metadata and "Assistant" in metadata["tokenizer.chat_template"].data
    assert [rwkv.bytes_of(text) for text in texts[1:6]] == [b"\0", b"\xe4\xbd", b"it's", b"\n\n", "é".encode()]


@pytest.mark.parametrize(
    "line",
    ["x 'a' 1", "1 'a' 2", "1 a 1", "1 'a'", "1 3 1", "1 __import__('os') 1", "1 ['a'] 1", f"1 '{'a' * 5000}' 5000"],
)
def test_broken_words(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadTokenizer, match="expected an id") as caught:
        words(tmp_path, f"1 'b' 1\n{line}\n")
    assert "line 2" in (caught.value.where or "")


@given(st.binary(max_size=40))
def test_bytes_of_words_come_back(data: bytes) -> None:
    assert rwkv.bytes_of(repr(data)[2:-1]) == data


def test_the_longest_word_goes_first() -> None:
    encoder = Words(["<s>", "a", "ab", "\\xc3\\xa9", "abc"], None)
    assert encoder.encode("abcabaé") == [4, 2, 1, 3]
    assert encoder.encode("axb") == [1]  # a byte without a word is dropped where nothing is unknown


@pytest.mark.parametrize(
    "line", ["[", "{}", '["a"]', '[1, 0.0, "NORMAL"]', '["a", "x"]', '["a", true]', '["a", 1e999]']
)
def test_broken_pieces(tmp_path: Path, line: str) -> None:
    checkpoint = folder_of(tmp_path)
    (tmp_path / "tokenizer.jsonl").write_text(f'["b", 0.0, "NORMAL"]\n{line}\n')
    with pytest.raises(BadTokenizer) as caught:
        vocab.load(checkpoint, vocab_size=12, hints=VocabHints("plamo2"))
    assert "line 2" in (caught.value.where or "")


def test_pieces(tmp_path: Path) -> None:
    rows = [
        ["<u>", 0, "UNKNOWN"],
        ["<|plamo:bos|>", 0, "CONTROL"],
        ["<0x41>", 0.0, "BYTE"],
        ["<|plamo:op|>", 0, "NORMAL"],
    ]
    checkpoint = folder_of(tmp_path, tokenizer_config_json={"bos_token": "<|plamo:bos|>", "add_bos_token": True})
    (tmp_path / "tokenizer.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metadata, _ = vocab.load(checkpoint, vocab_size=6, hints=VocabHints("plamo2"))
    assert list(metadata["tokenizer.ggml.tokens"].data)[3:] == ["<|plamo:op|>", "[PAD1]", "[PAD2]"]
    assert types_of(metadata) == [2, 3, 6, 3, 5, 5]
    assert "tokenizer.ggml.add_bos_token" not in metadata  # llama.cpp adds none for this kind


def test_pieces_by_the_sum_of_their_scores() -> None:
    ids = {"a": 0, "ab": 1, "b": 2, "bc": 3, "c": 4, "<0xC3>": 5, "<0xA9>": 6}
    encoder = Plamo(ids, [-1.0, -3.0, -1.0, -0.5, -1.0, 0, 0], [1, 1, 1, 1, 1, 6, 6])
    assert encoder.encode("abc") == [0, 3]
    assert encoder.encode("\ufeffaéx") == [0, 5, 6]  # a byte order mark in front, bytes of é, no token for x


UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["▁a", -1.5], ["b", -2.0]]}


def unigram(path: Path, **changes: Any) -> dict[str, Any]:
    added = [{"id": 0, "content": "<unk>", "special": True}]
    return load(path, tokenizer_json={"model": UNIGRAM | changes, "added_tokens": added})


def test_unigram_of_tokenizer_json(tmp_path: Path) -> None:
    metadata = unigram(tmp_path)
    assert list(metadata["tokenizer.ggml.tokens"].data)[:4] == ["<unk>", "▁a", "b", "[PAD3]"]
    assert types_of(metadata)[:4] == [2, 1, 1, 5] and metadata["tokenizer.ggml.model"].data == "t5"


@pytest.mark.parametrize("entry", [[], ["a"], ["a", "b"], [1, 2], ["a", True], "a", {"a": 1}, ["a", 1e999]])
def test_broken_unigram(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(BadTokenizer, match="expected|no number"):
        unigram(tmp_path, vocab=[["<unk>", 0], entry])


def model(**more: Any) -> Unigram:
    texts, scores, types = ["<unk>", "▁", "▁a", "a", "b", "ab"], [0, -2.0, -3.0, -1.0, -1.0, -1.5], [2, 1, 1, 1, 1, 1]
    given = {"charsmap": b"", "prefix": True, "merge_blanks": True} | more
    return Unigram(texts, scores, types, 0, **given)


def test_unigram() -> None:
    assert model().encode("ab  b") == [1, 5, 1, 4]
    assert model().encode(" axyb") == [2, 0, 4]  # neighbouring unknown characters are one; ties go to the earlier start
    assert model(merge_blanks=False, prefix=False).encode("a b") == [3, 1, 4]
    assert model().encode("") == []


@pytest.mark.parametrize("data", [b"\1\0\0\0", b"\xff\xff\xff\xff", struct.pack("<II", 4, 1 << 30) + b"a"])
def test_broken_character_maps(data: bytes) -> None:
    with pytest.raises(BadTokenizer):
        CharacterMap(data).replace("any text")


@settings(max_examples=200)
@given(st.binary(max_size=64), st.text(max_size=12))
def test_any_character_map_is_an_error_or_a_text(data: bytes, text: str) -> None:
    try:
        CharacterMap(data).replace(text)
    except BadTokenizer as error:
        assert error.where == "tokenizer.ggml.precompiled_charsmap"


def test_word_pieces() -> None:
    ids = {"[UNK]": 0, "▁play": 1, "ing": 2, "▁,": 3, "▁今": 4, "▁cafe": 5}
    encoder = WordPiece(ids, 0, lowercase=True, strip_accents=True)
    assert encoder.encode("Playing,今 café\u0000 xyz") == [1, 2, 3, 4, 5, 0]
    plain = WordPiece(ids, 0, lowercase=False, strip_accents=False)
    assert plain.encode("Playing playing") == [0, 1, 2]


def test_a_broken_map_in_a_checkpoint(tmp_path: Path) -> None:
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "no base64"}
    with pytest.raises(BadTokenizer, match="base64"):
        load(tmp_path, tokenizer_json={"model": UNIGRAM, "normalizer": normalizer})
    kept = base64.b64encode(b"\4\0\0\0\0\0\0\0a\0").decode()
    found = load(
        tmp_path / "b", tokenizer_json={"model": UNIGRAM, "normalizer": normalizer | {"precompiled_charsmap": kept}}
    )
    assert len(found["tokenizer.ggml.precompiled_charsmap"].data) == 10
