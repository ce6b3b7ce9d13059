"""tiktoken's ranks: the merges rebuilt from them are those that the ranks were made of, and the ids are the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from helpers import oracles
from helpers.vocabularies import folder_of, types_of
from quantcli import vocab
from quantcli.container import Value
from quantcli.errors import BadTokenizer, UnknownPreTokenizer
from quantcli.vocab import VocabHints
from quantcli.vocab.bytelevel import byte_to_character, character_to_byte
from quantcli.vocab.tokenizer import Tokenizer

COMPOSED = "caf\u00e9 vs cafe\u0301 and \u00c5 vs \u212b"
#: file -> (class, an oracle whose tokenizer.json cuts words alike, the name that is written)
RELEASED = {
    "qwen.tiktoken": ("QWenTokenizer", "arch-new/qwen3-vl", "qwen2"),
    "hy.tiktoken": ("HYTokenizer", "arch-new/qwen3-vl", "hunyuan"),
    "tokenizer.model": ("ChatGLM4Tokenizer", "arch-new/chatglm4", "chatglm-bpe"),
}


def tokens_of(name: str) -> tuple[list[bytes], list[str], list[dict[str, Any]]]:
    """The byte tokens of a tokenizer.json in order of ranks, its merges, and its vectors."""
    folder = oracles.vocabularies()[name]
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    added = {token["content"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    plain = sorted((index, text) for text, index in model["vocab"].items() if text not in added)
    table = character_to_byte()
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    vectors = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["vectors"]
    return [bytes(table[c] for c in text) for _, text in plain], merges, vectors


def lines(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def load(path: Path, architecture: str, **files: Any) -> dict[str, Value]:
    return vocab.load(folder_of(path, **files), vocab_size=None, hints=VocabHints(architecture))[0]


def file_of(path: Path, name: str, data: bytes, **files: Any) -> Any:
    checkpoint = folder_of(path, **files)
    (path / name).write_bytes(data)
    return checkpoint


@pytest.mark.parametrize("name", RELEASED)
def test_merges_come_back(tmp_path: Path, name: str) -> None:
    kind, oracle, pre = RELEASED[name]
    tokens, merges, vectors = tokens_of(oracle)
    checkpoint = file_of(tmp_path, name, lines(tokens), tokenizer_config_json={"tokenizer_class": kind})
    metadata, _ = vocab.load(checkpoint, vocab_size=len(tokens) + 220, hints=VocabHints("qwen"))
    assert metadata["tokenizer.ggml.pre"].data == pre
    assert list(metadata["tokenizer.ggml.merges"].data) == merges
    tokenizer = Tokenizer.from_metadata(metadata)
    theirs = {index: rank for rank, index in enumerate(ids_of(oracle))}
    for vector in vectors:
        if vector["text"] != COMPOSED and all(index in theirs for index in vector["ids"]):
            ours = tokenizer.encode(vector["text"], add_special=False)
            assert ours == [theirs[index] for index in vector["ids"]], vector["text"]


def ids_of(name: str) -> list[int]:
    """The oracle's ids in order of ranks."""
    content = json.loads((oracles.vocabularies()[name] / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"] for token in content["added_tokens"]}
    return sorted(index for text, index in content["model"]["vocab"].items() if text not in added)


BYTES = [bytes([byte]) for byte in range(256)]


def test_special_tokens_of_qwen(tmp_path: Path) -> None:
    checkpoint = file_of(tmp_path, "qwen.tiktoken", lines([*BYTES, b"he", b"hel"]))
    metadata, _ = vocab.load(checkpoint, vocab_size=500, hints=VocabHints("qwen"))
    texts = list(metadata["tokenizer.ggml.tokens"].data)
    assert texts[256:262] == ["he", "hel", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>"]
    assert texts[-1] == "[PAD499]" and types_of(metadata)[258:261] == [3, 3, 3]
    assert [metadata[f"tokenizer.ggml.{kind}_token_id"].data for kind in ("bos", "eos", "unknown")] == [258] * 3
    assert list(metadata["tokenizer.ggml.merges"].data) == ["h e", "he l"]


def test_special_tokens_of_kimi(tmp_path: Path) -> None:
    listed = {"256": {"content": "[BOS]", "special": True}, "257": {"content": "[EOS]", "special": True}}
    config = {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": listed, "bos_token": "[BOS]"}
    files = {"tokenizer_config_json": config, "config_json": {"eos_token_id": 259}}
    checkpoint = file_of(tmp_path, "tiktoken.model", lines(BYTES), **files)
    metadata, notes = vocab.load(checkpoint, vocab_size=260, hints=VocabHints("deepseek2"))
    texts = list(metadata["tokenizer.ggml.tokens"].data)
    assert texts[256:] == ["[BOS]", "[EOS]", "<|reserved_token_258|>", "<|reserved_token_259|>"]
    assert metadata["tokenizer.ggml.eos_token_id"].data == 257  # the tokenizer's own, not that of config.json
    assert metadata["tokenizer.ggml.bos_token_id"].data == 256
    assert metadata["tokenizer.ggml.pre"].data == "kimi-k2" and notes == []
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.decode(tokenizer.encode("Kimi 今天's 123")) == "Kimi 今天's 123"


def test_tekken(tmp_path: Path) -> None:
    tokens = [*BYTES, b"he", b"hel", b"hello"]
    rows = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for i, t in enumerate(tokens)]
    special = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])]
    settings = {"default_vocab_size": 263, "default_num_special_tokens": 5, "pattern": "x"}
    content = {"config": settings, "vocab": rows, "special_tokens": special}
    metadata = load(tmp_path, "llama", tekken_json=content)
    texts = list(metadata["tokenizer.ggml.tokens"].data)
    assert texts[:6] == ["<unk>", "<s>", "</s>", "<SPECIAL_3>", "<SPECIAL_4>", byte_to_character()[0]]
    assert texts[261:] == ["he", "hel"]  # the settings say how many of the ranks are used
    assert list(metadata["tokenizer.ggml.merges"].data) == ["h e", "he l"]
    assert metadata["tokenizer.ggml.pre"].data == "tekken" and metadata["tokenizer.ggml.add_bos_token"].data is True
    older = load(tmp_path / "older", "llama", tekken_json={**content, "special_tokens": None})
    assert list(older["tokenizer.ggml.tokens"].data)[:5] == ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]


def test_an_unknown_tokenizer_needs_a_name(tmp_path: Path) -> None:
    checkpoint = file_of(tmp_path, "other.tiktoken", lines(BYTES))
    with pytest.raises(UnknownPreTokenizer) as caught:
        vocab.load(checkpoint, vocab_size=256, hints=VocabHints("llama"))
    assert "--pre-tokenizer" in (caught.value.hint or "")
    metadata, _ = vocab.load(checkpoint, vocab_size=256, hints=VocabHints("llama"), pre_tokenizer="qwen2")
    assert metadata["tokenizer.ggml.pre"].data == "qwen2"


BROKEN = {
    "no base64": (b"IQ== 0\n!! 1\n", "line 2"),
    "no rank": (b"IQ== 0\nIg==\n", "line 2"),
    "negative rank": (b"IQ== 0\nIg== -1\n", "line 2"),
    "two equal ranks": (b"IQ== 0\nIg== 0\n", "same rank"),
    "a byte is missing": (lines(BYTES[:-1]), "0xff"),
    "a token that is too long": (b"IQ== 0\n" + base64.b64encode(bytes(2000)) + b" 1\n", "too long"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ranks(tmp_path: Path, name: str) -> None:
    data, says = BROKEN[name]
    with pytest.raises(BadTokenizer) as caught:
        vocab.load(file_of(tmp_path, "qwen.tiktoken", data), vocab_size=500, hints=VocabHints("qwen"))
    assert says in f"{caught.value.message} {caught.value.where}"


TEKKEN = {"config": {"default_vocab_size": 300, "default_num_special_tokens": 5}, "vocab": [], "special_tokens": None}
BROKEN_TEKKEN = [
    {}, {"config": {}}, {"config": {"default_vocab_size": 3, "default_num_special_tokens": 5}}, {"vocab": {}},
    {"vocab": [{"rank": 0}]}, {"vocab": [{"rank": 1, "token_bytes": "IQ=="}]}, {"special_tokens": [1]},
    {"special_tokens": [{"rank": "0", "token_str": "x"}]},
]  # fmt: skip


@pytest.mark.parametrize("changes", BROKEN_TEKKEN)
def test_broken_tekken(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadTokenizer):
        load(tmp_path, "llama", tekken_json=TEKKEN | changes)
