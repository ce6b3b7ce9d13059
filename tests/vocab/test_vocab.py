"""Vocabularies: the entries that llama.cpp's converter wrote, special cases, and files that are wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import differences as known
from helpers import oracles
from helpers.vocabularies import byte_level, differences, folder_of, load, recorded, types_of
from quantcli import vocab
from quantcli.errors import BadTokenizer, MalformedFile, QuantcliError, UnknownPreTokenizer, UsageError
from quantcli.vocab import VocabHints, protobuf, sentencepiece

LLAMA = VocabHints("llama", prefix_from_config=True)


def bpe(path: Path, size: int | None = None, config: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Load a made-up byte-level tokenizer."""
    checkpoint = folder_of(path, tokenizer_json=byte_level(**changes), tokenizer_config_json=config or {})
    return vocab.load(checkpoint, vocab_size=size, hints=VocabHints("gpt2"))


# ---- recorded entries


@pytest.mark.parametrize("name", oracles.names())
def test_recorded_entries(name: str) -> None:
    metadata, notes = load(oracles.folder(name))
    wrong = differences(metadata, recorded(oracles.folder(name)))
    assert [line for line in wrong if not line.startswith(known.parts(name, "entry"))] == []
    if name in ("llama-spm", "llama3"):
        assert notes == []


def test_byte_fallback_scores_follow_merges() -> None:
    metadata, _ = load(oracles.folder("mixtral"))
    tokens, scores = list(metadata["tokenizer.ggml.tokens"].data), metadata["tokenizer.ggml.scores"].data
    merges = json.loads((oracles.folder("mixtral") / "tokenizer.json").read_text())["model"]["merges"]
    order = list(dict.fromkeys(left + right for left, right in merges))
    found = [scores[tokens.index(text)] for text in order]
    assert found == [-float(i) for i in range(len(order))]
    assert scores[tokens.index("<s>")] == scores[tokens.index("<0x0A>")] == -1000
    assert types_of(metadata)[tokens.index("<0x0A>")] == 6


# ---- what files can say


def test_padding_and_ids_beyond(tmp_path: Path) -> None:
    metadata, notes = bpe(tmp_path / "larger", size=261)
    assert metadata["tokenizer.ggml.tokens"].data[258:] == ["<|end|>", "[PAD259]", "[PAD260]"]
    assert types_of(metadata)[257:] == [1, 3, 5, 5]
    far = {"id": 10**12, "content": "<far>", "special": False}
    metadata, notes = bpe(tmp_path / "beyond", size=259, added_tokens=[*byte_level()["added_tokens"], far])
    assert len(metadata["tokenizer.ggml.tokens"].data) == 259
    assert any("<far>" in note for note in notes)


def test_ids_and_flags(tmp_path: Path) -> None:
    config = {"eos_token": {"content": "<|end|>"}, "add_bos_token": True, "add_eos_token": True}
    metadata, _ = bpe(tmp_path / "a", config=config)
    assert metadata["tokenizer.ggml.eos_token_id"].data == 258
    assert metadata["tokenizer.ggml.add_bos_token"].data is True  # no post-processor: the configuration counts
    metadata, _ = bpe(tmp_path / "b", config=config, post_processor={"type": "ByteLevel"})
    assert metadata["tokenizer.ggml.add_bos_token"].data is False  # the post-processor wins


def test_trailing_token_of_a_template_becomes_eos(tmp_path: Path) -> None:
    added = [{"id": 258, "content": "<|end|>", "special": True}, {"id": 259, "content": "<sep>", "special": True}]
    single = [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<sep>"}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": []}
    metadata, _ = bpe(tmp_path, config={"eos_token": "<|end|>"}, added_tokens=added, post_processor=template)
    assert (metadata["tokenizer.ggml.eos_token_id"].data, metadata["tokenizer.ggml.eot_token_id"].data) == (259, 258)
    assert metadata["tokenizer.ggml.add_eos_token"].data is True


@pytest.mark.parametrize("bad", [-1, 10**9, "7", True, [None]])
def test_unusable_special_ids_are_passed_over(tmp_path: Path, bad: Any) -> None:
    config = {"pad_token_id": bad, "eos_token_id": [3, 4]}
    checkpoint = folder_of(tmp_path, tokenizer_json=byte_level(), config_json=config)
    metadata, _ = vocab.load(checkpoint, vocab_size=259, hints=VocabHints("gpt2"))
    assert "tokenizer.ggml.padding_token_id" not in metadata
    assert metadata["tokenizer.ggml.eos_token_id"].data == 3


def test_hints(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, tokenizer_json=byte_level(), tokenizer_config_json={"add_prefix_space": True})
    texts = {"eos": "<|end|>", "bos": "<none>"}
    own = VocabHints("llama", prefix_from_config=True, ids={"eot": 107, "prefix": 5}, texts=texts, add_bos=False)
    metadata, _ = vocab.load(checkpoint, vocab_size=259, hints=own)
    short = {key.removeprefix("tokenizer.ggml."): value.data for key, value in metadata.items()}
    found = {key: value for key, value in short.items() if "_id" in key or "add" in key}
    ids = {"eot_token_id": 107, "fim_pre_token_id": 5, "eos_token_id": 258}
    assert found == ids | {"add_bos_token": False, "add_space_prefix": True}


def test_merges_as_texts_and_blanks_in_them(tmp_path: Path) -> None:
    vocabulary = byte_level()["model"]["vocab"] | {" ": 259, " h": 260}
    as_text, _ = bpe(tmp_path / "a", merges=["h e", "he l"])
    as_pairs, _ = bpe(tmp_path / "b", vocab=vocabulary, merges=[[" ", "h"]])
    assert list(as_text["tokenizer.ggml.merges"].data) == ["h e", "he l"]
    assert list(as_pairs["tokenizer.ggml.merges"].data) == ["\u0120 h"]


def test_vocab_json_and_merges_txt(tmp_path: Path) -> None:
    files = {"vocab_json": byte_level()["model"]["vocab"], "merges_txt": "#version: 0.2\nh e\nhe l\n\n"}
    added = {"258": {"content": "<|end|>", "special": True}}
    config = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": added}
    checkpoint = folder_of(tmp_path / "known", **files, tokenizer_config_json=config)
    metadata, _ = vocab.load(checkpoint, vocab_size=None, hints=VocabHints("gpt2"))
    assert metadata["tokenizer.ggml.pre"].data == "gpt-2"
    assert list(metadata["tokenizer.ggml.merges"].data) == ["h e", "he l"]
    assert types_of(metadata)[258] == 3
    with pytest.raises(UnknownPreTokenizer):
        vocab.load(folder_of(tmp_path / "unknown", **files), vocab_size=None, hints=VocabHints("gpt2"))


def test_tiktoken_ranks_are_no_sentencepiece(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, tokenizer_json=byte_level(), tokenizer_model=b"IQ== 0\nIg== 1\nIw== 2\n")
    metadata, _ = vocab.load(checkpoint, vocab_size=259, hints=VocabHints("gpt2"))
    assert metadata["tokenizer.ggml.model"].data == "gpt2"


def test_chat_templates(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}]
    metadata, _ = bpe(tmp_path / "list", config={"chat_template": named})
    assert metadata["tokenizer.chat_template"].data == "D"
    assert metadata["tokenizer.chat_template.tool_use"].data == "T"
    assert list(metadata["tokenizer.chat_templates"].data) == ["tool_use"]
    files = {"tokenizer_json": byte_level(), "chat_template_json": {"chat_template": "J"}}
    checkpoint = folder_of(tmp_path / "json", **files)

    def load_one(**more: str) -> Any:
        return vocab.load(checkpoint, vocab_size=None, hints=VocabHints("gpt2"), **more)[0]

    assert load_one()["tokenizer.chat_template"].data == "J"
    (tmp_path / "json" / "chat_template.jinja").write_text("X")
    (tmp_path / "json" / "additional_chat_templates").mkdir()
    (tmp_path / "json" / "additional_chat_templates" / "rag.jinja").write_text("R")
    assert load_one()["tokenizer.chat_template"].data == "X"
    assert load_one()["tokenizer.chat_template.rag"].data == "R"
    override = load_one(chat_template="mine")
    assert override["tokenizer.chat_template"].data == "mine" and "tokenizer.chat_templates" not in override


def test_sentencepiece_space_prefix_and_added_tokens(tmp_path: Path) -> None:
    pieces = [message("<unk>", 0.0, 2), message("<s>", 0.0, 3), message("\u2581a", -1.0, 1), message("<0x41>", 0.0, 6)]
    added = {"4": {"content": "\u2581\u2581"}, "5": {"content": "<|x|>"}, "9": {"content": "y"}}
    config = {"added_tokens_decoder": added}
    checkpoint = folder_of(tmp_path, tokenizer_model=model_of(pieces, prefix=False), tokenizer_config_json=config)
    metadata, notes = vocab.load(checkpoint, vocab_size=7, hints=LLAMA)
    texts = list(metadata["tokenizer.ggml.tokens"].data)
    assert texts == ["<unk>", "<s>", "\u2581a", "<0x41>", "  ", "<|x|>", "[PAD6]"]
    assert types_of(metadata) == [2, 3, 1, 6, 4, 3, 5]
    assert metadata["tokenizer.ggml.scores"].data.tolist() == [0, 0, -1, 0, -1000, -1000, -10000]
    assert metadata["tokenizer.ggml.add_space_prefix"].data is False
    assert any("'y'" in note for note in notes)


def test_the_package_reads_the_same_model() -> None:
    package = pytest.importorskip("sentencepiece")
    path = oracles.folder("llama-spm") / "tokenizer.model"
    processor = package.SentencePieceProcessor(model_file=str(path))
    ours = sentencepiece.parse(path.read_bytes(), "tokenizer.model")
    theirs = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    assert [piece[:2] for piece in ours.pieces] == theirs


# ---- broken and hostile files


def field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + size_of(len(payload)) + payload


def size_of(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(text: str, score: float, kind: int) -> bytes:
    return field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + size_of(kind)


def model_of(pieces: list[bytes], prefix: bool = True, algorithm: int = 2) -> bytes:
    parts = b"".join(field(1, piece) for piece in pieces)
    return parts + field(2, b"\x18" + size_of(algorithm)) + field(3, b"\x18" + bytes([prefix]))


GOOD_PIECE = message("a", 0.0, 1)
BROKEN_MODELS = {
    "empty": (b"", "no pieces"),
    "truncated": (model_of([GOOD_PIECE])[:-1], "reaches beyond"),
    "length beyond the file": (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "reaches beyond"),
    "endless number": (b"\xff" * 40, "does not end"),
    "wire type": (b"\x0b\x00", "wire type 3"),
    "field zero": (b"\x02\x00", "field number 0"),
    "piece is a number": (b"\x08\x01", "field 1 is no message"),
    "not UTF-8": (field(1, field(1, b"\xff\xfe")), "not UTF-8"),
    "score is infinite": (field(1, message("a", float("inf"), 1)), "score inf"),
    "type 9": (field(1, message("a", 0.0, 9)), "type 9"),
    "word model": (model_of([GOOD_PIECE], algorithm=3), "kind word"),
    "two equal pieces": (model_of([GOOD_PIECE, GOOD_PIECE]), "are both 'a'"),
    "html": (b"<!DOCTYPE html><html>not found</html>", ""),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_broken_sentencepiece(tmp_path: Path, name: str) -> None:
    data, says = BROKEN_MODELS[name]
    checkpoint = folder_of(tmp_path, tokenizer_model=data)
    with pytest.raises((BadTokenizer, MalformedFile)) as caught:
        vocab.load(checkpoint, vocab_size=8, hints=LLAMA)
    assert says in caught.value.message
    assert str(tmp_path / "tokenizer.model") in (caught.value.where or "")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_sentencepiece_never_crashes(noise: bytes, position: int, value: int) -> None:
    good = bytearray((oracles.folder("llama-spm") / "tokenizer.model").read_bytes())
    good[position % len(good)] = value
    for data in (noise, bytes(good), bytes(good[: position % len(good)])):
        try:
            model = sentencepiece.parse(data, "x")
            assert len(model.pieces) <= len(data)
        except (BadTokenizer, MalformedFile) as error:
            assert error.where


def test_protobuf_reads_every_wire_type() -> None:
    data = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\x01\x00\x00\x00" + b"\x21" + bytes(8)
    found = [(n, bytes(v) if isinstance(v, memoryview) else v) for n, _, v, _ in protobuf.fields(memoryview(data), "x")]
    assert found == [(1, 150), (2, b"hi"), (3, 1), (4, 0)]


def with_vocab(**more: Any) -> dict[str, Any]:
    return byte_level()["model"]["vocab"] | more


def token(index: Any, content: Any) -> dict[str, Any]:
    return {"id": index, "content": content, "special": True}


BROKEN_JSON: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "no object `model`"),
    "vocabulary is a list": ({"vocab": [1, 2]}, "expected an object"),
    "id is a text": ({"vocab": with_vocab(x="1")}, "expected an integer"),
    "id is a fraction": ({"vocab": with_vocab(x=1.5)}, "expected an integer"),
    "id is negative": ({"vocab": with_vocab(x=-1)}, "no token id"),
    "id is huge": ({"vocab": with_vocab(x=10**30)}, "no token id"),
    "id beyond the rows": ({"vocab": with_vocab(x=10**6)}, "embedding rows"),
    "two tokens with one id": ({"vocab": with_vocab(x=5)}, "belongs to two tokens"),
    "half a surrogate pair": ({"vocab": with_vocab(**{"\ud800": 259})}, "half a surrogate"),
    "merge of three": ({"merges": [["a", "b", "c"]]}, "no pair"),
    "merge of numbers": ({"merges": [[1, 2]]}, "no pair"),
    "merge with an empty side": ({"merges": ["a "]}, "no pair"),
    "merges are an object": ({"merges": {"a": "b"}}, "expected an array"),
    "merge of unknown tokens": ({"merges": [["h", "\u4e00"]]}, "is not there"),
    "merge with unknown result": ({"merges": [["l", "l"]]}, "'ll'"),
    "added token without content": ({"added_tokens": [{"id": 258}]}, "expected a text"),
    "added tokens are texts": ({"added_tokens": ["x"]}, "expected an object"),
    "two added tokens with one id": ({"added_tokens": [token(258, "x"), token(258, "y")]}, "have the id 258"),
    "one added token with two ids": ({"added_tokens": [token(258, "xx"), token(259, "xx")]}, "has the ids 258 and 259"),
    "padding in the way": ({"added_tokens": [token(258, "[PAD259]")]}, "are both '[PAD259]'"),
    "added token with a huge id": ({"added_tokens": [token(10**30, "x")]}, "no token id"),
    "kind": ({"type": "Magic"}, "'Magic'"),
    "template is a text": ({"post_processor": {"type": "TemplateProcessing", "single": "A"}}, "expected an array"),
    "split without pattern": ({"pre_tokenizer": {"type": "Split", "pattern": {}}}, "no pattern"),
}


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_broken_tokenizer_json(tmp_path: Path, name: str) -> None:
    changes, says = BROKEN_JSON[name]
    with pytest.raises(BadTokenizer) as caught:
        bpe(tmp_path, size=300, **changes)
    assert says in caught.value.message
    assert str(tmp_path / "tokenizer.json") in (caught.value.where or "")


@pytest.mark.parametrize("size", [0, -5, 10**12])
def test_absurd_vocabulary_sizes(tmp_path: Path, size: int) -> None:
    with pytest.raises(BadTokenizer, match="outside"):
        bpe(tmp_path, size=size)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadTokenizer, match="no tokenizer files") as caught:
        vocab.load(folder_of(tmp_path), vocab_size=8, hints=LLAMA)
    assert "tokenizer.model" in (caught.value.hint or "")


@pytest.mark.parametrize("entries", [{"x": {"content": "a"}}, {"-1": {"content": "a"}}, {"1": "a"}, [1]])
def test_broken_list_of_added_tokens(tmp_path: Path, entries: Any) -> None:
    with pytest.raises(BadTokenizer):
        bpe(tmp_path, size=300, config={"added_tokens_decoder": entries})


@pytest.mark.parametrize("template", [5, {"default": "x"}, [{"name": "x"}], ["x"]])
def test_broken_chat_templates(tmp_path: Path, template: Any) -> None:
    with pytest.raises(BadTokenizer):
        bpe(tmp_path, size=300, config={"chat_template": template})


TEXTS = st.sampled_from(["A", "h", "he", "<|end|>", "BPE", "Split", "Sequence"])
NAMES = st.sampled_from(["type", "id", "content", "single", "h"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 400) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner),
    max_leaves=12,
)
PLACES = ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model", "vocab", "merges", "decoder"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES), JSON, st.sampled_from(["added_tokens_decoder", "chat_template", "eos_token"]), JSON)
def test_any_json_is_an_error_or_a_vocabulary(
    tmp_path_factory: Any, place: str, value: Any, key: str, other: Any
) -> None:
    try:
        bpe(tmp_path_factory.mktemp("json"), 300, {key: other}, **{place: value})
    except QuantcliError as error:
        assert error.message


def test_name_of_the_pre_tokenizer_is_checked(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, tokenizer_json=byte_level())
    chosen, _ = vocab.load(checkpoint, vocab_size=None, hints=VocabHints("gpt2"), pre_tokenizer="falcon")
    assert chosen["tokenizer.ggml.pre"].data == "falcon"
    with pytest.raises(UsageError) as caught:
        vocab.load(checkpoint, vocab_size=None, hints=VocabHints("gpt2"), pre_tokenizer="lama-bpe")
    assert "llama-bpe" in (caught.value.hint or "")
