"""Text to ids from GGUF metadata alone, held against Hugging Face's ids, sentencepiece and hand-made vocabularies."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import oracles
from helpers.vocabularies import byte_level, folder_of, load, named, types_of, wrong_ids
from quantcli import vocab
from quantcli.container import Value, ValueType, array, boolean, string, strings, u32
from quantcli.errors import BadTokenizer, MalformedFile, QuantcliError, UnsupportedFile
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab import VocabHints
from quantcli.vocab.bytelevel import byte_to_character
from quantcli.vocab.tokenizer import Tokenizer

NORMALIZING = ("bert", "t5")  # kinds of vocabulary that do not give a text back as it was


def tokenizer_of(folder: Path) -> Tokenizer:
    return Tokenizer.from_metadata(named(load(folder)[0], folder.name))


@pytest.mark.parametrize("name", oracles.names())
def test_recorded_ids(name: str) -> None:
    assert wrong_ids(oracles.folder(name)) == []


@pytest.mark.parametrize("name", oracles.names())
def test_text_comes_back(name: str) -> None:
    tokenizer = tokenizer_of(oracles.folder(name))
    if tokenizer.kind in NORMALIZING:
        pytest.skip("its normalizer changes texts")
    for vector in json.loads((oracles.folder(name) / "tokens.json").read_text(encoding="utf-8"))["vectors"]:
        ids = tokenizer.encode(vector["text"], add_special=False)
        assert tokenizer.decode(ids, special=True) == vector["text"]
        assert "".join(tokenizer.stream(ids, special=True)).lstrip(" ") == vector["text"].lstrip(" ")


def test_sentencepiece_agrees_on_a_long_text() -> None:
    ours, theirs = both_readers()
    vectors = json.loads((oracles.folder("llama-spm") / "tokens.json").read_text(encoding="utf-8"))["vectors"]
    text = "".join(vector["text"] for vector in vectors if "<" not in vector["text"])
    text = "\n".join([text, text.upper(), text[::-1], "a" * 500, "ab" * 300]) * 3
    assert ours.encode(text, add_special=False) == theirs.encode(text)


@cache
def both_readers() -> tuple[Tokenizer, Any]:
    """Ours and the package's, for the bundled SentencePiece model."""
    package = pytest.importorskip("sentencepiece")
    folder = oracles.folder("llama-spm")
    return tokenizer_of(folder), package.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aehllo the\u2581\n\tü今😀"), max_size=60))
def test_sentencepiece_agrees_on_any_text(text: str) -> None:
    ours, theirs = both_readers()
    assert ours.encode(text, add_special=False) == theirs.encode(text)


def test_hugging_face_agrees_on_the_evaluation_text(shared: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = shared / "models" / "mid"
    config = json.loads((folder / "config.json").read_text())
    metadata, _ = vocab.load(Checkpoint(folder), vocab_size=config["vocab_size"], hints=VocabHints("llama"))
    assert metadata["tokenizer.ggml.pre"].data == "llama-bpe"
    text = (shared / "text" / "wiki.test.raw").read_text(encoding="utf-8")[:300_000]
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    ours = Tokenizer.from_metadata(metadata)
    assert ours.encode(text, add_special=False) == theirs
    assert ours.decode(theirs) == text


# ---- special tokens


def spm(tokens: list[tuple[str, float, int]], **more: Value) -> dict[str, Value]:
    """Metadata of a ``llama`` vocabulary: unk, bos, eos, bytes, then ``tokens`` (text, score, type)."""
    rows = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    rows += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)] + tokens
    return {
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": strings([row[0] for row in rows]),
        "tokenizer.ggml.scores": array(ValueType.FLOAT32, [row[1] for row in rows]),
        "tokenizer.ggml.token_type": array(ValueType.INT32, [row[2] for row in rows]),
    } | {f"tokenizer.ggml.{key}" if "." not in key else key: value for key, value in more.items()}


WORDS = [("\u2581", -9.0, 1), ("a", -9.0, 1), ("b", -9.0, 1), ("ab", -1.0, 1), ("ba", -0.5, 1), ("\u2581a", -0.7, 1)]
BLANK, A, B, AB, BA, BLANK_A, TOOL, LONG, CONTROL = range(259, 268)
SPECIAL = [("[t]", -1000.0, 4), ("[t][t]", -1000.0, 4), ("<c>", -1000.0, 3)]


def test_merges_by_score_leftmost_first() -> None:
    plain = Tokenizer.from_metadata(spm(WORDS, add_space_prefix=boolean(False)))
    assert plain.encode("aba", add_special=False) == [A, BA]  # the better score wins over the left one
    assert plain.encode("aab", add_special=False) == [A, AB]
    assert plain.encode("abab", add_special=False) == [A, BA, B]
    assert plain.encode("aa", add_special=False) == [A, A]
    prefixed = Tokenizer.from_metadata(spm(WORDS))
    assert prefixed.encode("ab") == [1, BLANK_A, B]  # ▁a scores better than ab
    assert prefixed.encode("") == [1]
    assert plain.encode("\u00e9", add_special=False) == [3 + 0xC3, 3 + 0xA9]


def test_special_tokens_are_cut_out_of_raw_text() -> None:
    tokenizer = Tokenizer.from_metadata(spm(WORDS + SPECIAL))
    assert tokenizer.encode("b[t]b", add_special=False) == [BLANK, B, TOOL, BLANK, B]  # a blank after it, too
    assert tokenizer.encode("[t][t][t]", add_special=False) == [LONG, TOOL]  # the longest first
    assert tokenizer.encode("<c>b", add_special=False, parse_special=True) == [CONTROL, BLANK, B]
    unparsed = tokenizer.encode("<c>b", add_special=False)
    assert CONTROL not in unparsed and tokenizer.decode(unparsed) == "<c>b"
    assert tokenizer.encode("</s>", add_special=False, parse_special=True) == [2]


def test_control_tokens_are_silent_unless_asked_for() -> None:
    tokenizer = Tokenizer.from_metadata(spm(WORDS + SPECIAL))
    ids = [1, BLANK, A, CONTROL, TOOL, 2]
    assert tokenizer.decode(ids) == "a[t]"
    assert tokenizer.decode(ids, special=True) == "<s> a<c>[t]</s>"


def test_phi3_strips_white_space_after_special_tokens() -> None:
    metadata = spm(WORDS + SPECIAL)
    for name, expected in (("Phi-3-mini", [CONTROL, BLANK, B]), ("other", [CONTROL, BLANK, BLANK, 3 + 10, B])):
        tokenizer = Tokenizer.from_metadata(named(metadata, name))
        assert tokenizer.encode("<c> \nb", add_special=False, parse_special=True) == expected


def test_masks_strip_white_space_before_them() -> None:
    words = [*WORDS, ("<mask>", -1000.0, 3)]
    by_architecture = {"general.architecture": string("nomic-bert-moe")}
    plain, stripping = (Tokenizer.from_metadata(spm(words, **more)) for more in ({}, by_architecture))
    text = "b \t<mask> <mask>"
    assert stripping.encode(text, False, True) == stripping.encode("b<mask><mask>", False, True)
    assert plain.encode(text, False, True) != stripping.encode(text, False, True)


def test_flags_and_ids_from_metadata() -> None:
    defaults = Tokenizer.from_metadata(spm(WORDS))
    assert (defaults.bos, defaults.eos, defaults.unknown, defaults.add_bos, defaults.add_eos) == (1, 2, 0, True, False)
    ids = {"bos_token_id": u32(A), "eos_token_id": u32(B)}
    flags = {"add_bos_token": boolean(False), "add_eos_token": boolean(True)}
    changed = Tokenizer.from_metadata(spm(WORDS, **ids, **flags))
    assert changed.encode("", add_special=True) == [B]
    outside = Tokenizer.from_metadata(spm(WORDS, bos_token_id=u32(10**6)))
    assert outside.bos is None and outside.encode("") == []


def test_end_of_generation_by_text() -> None:
    tokenizer = Tokenizer.from_metadata(spm([*WORDS, ("<|im_end|>", 0.0, 4), ("<|end|>", 0.0, 3)]))
    assert {2, 265, 266} == tokenizer.end_of_generation
    assert tokenizer.eot == 265
    harmony = Tokenizer.from_metadata(spm([*WORDS, ("<|end|>", 0.0, 3), ("<|return|>", 0.0, 3), ("<|call|>", 0.0, 3)]))
    assert 265 not in harmony.end_of_generation and {266, 267} <= harmony.end_of_generation


def gpt2(path: Path, pre: str | None = None, **changes: Any) -> Tokenizer:
    checkpoint = folder_of(path, tokenizer_json=byte_level(**changes))
    metadata, _ = vocab.load(checkpoint, vocab_size=None, hints=VocabHints("gpt2"), pre_tokenizer=pre)
    return Tokenizer.from_metadata(metadata)


def test_ignore_merges(tmp_path: Path) -> None:
    table = {c: i for i, c in enumerate(byte_to_character().values())} | {"lo": 256, "hello": 257}
    changes = {"vocab": table, "merges": [["l", "o"]]}
    assert gpt2(tmp_path / "a", "llama-bpe", **changes).encode("hello") == [257]
    merged = gpt2(tmp_path / "b", "dbrx", **changes)
    assert merged.encode("hello") == [table["h"], table["e"], table["l"], 256]


@pytest.mark.parametrize("name", ["sarvam-moe", "granite-embed-multi-311m"])
def test_merges_over_plain_text(name: str) -> None:
    """Byte-fallback BPE that is written with its merges: U+2581 for blanks, no mapping of bytes."""
    folder = oracles.vocabularies()["arch-new/gemma4"]
    metadata, _ = vocab.load(Checkpoint(folder), vocab_size=432, hints=VocabHints("bailingmoe2", pre=(name,)))
    assert (metadata["tokenizer.ggml.model"].data, metadata["tokenizer.ggml.pre"].data) == ("gpt2", name)
    assert "\u2581 t" in list(metadata["tokenizer.ggml.merges"].data)
    tokenizer = Tokenizer.from_metadata(metadata)
    for vector in json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["vectors"]:
        assert tokenizer.encode(vector["text"], add_special=False, parse_special=True) == vector["ids"]
        assert tokenizer.decode(vector["ids"], special=True) == vector["text"]
    assert types_of(metadata)[list(metadata["tokenizer.ggml.tokens"].data).index("<0x41>")] == 6


def test_streaming_keeps_characters_whole(tmp_path: Path) -> None:
    tokenizer = gpt2(tmp_path)
    ids = tokenizer.encode("a😀ü", add_special=False)
    assert len(ids) == 7
    assert list(tokenizer.stream(ids)) == ["a", "", "", "", "😀", "", "ü", ""]
    assert list(tokenizer.stream(ids[:3])) == ["a", "", "", "\ufffd"]
    assert tokenizer.decode_bytes(ids) == "a😀ü".encode()


# ---- metadata that is wrong

NOT_A_NUMBER = Value(ValueType.ARRAY, numpy.full(265, numpy.nan, "<f4"), ValueType.FLOAT32)
GPT2 = {"tokenizer.ggml.model": string("gpt2"), "tokenizer.ggml.merges": strings([])}
WRONG: dict[str, tuple[dict[str, Value], str]] = {
    "no model": ({"tokenizer.ggml.model": string("")}, "no vocabulary"),
    "other kind": ({"tokenizer.ggml.model": string("hybriddna")}, "'hybriddna'"),
    "model is a number": ({"tokenizer.ggml.model": u32(3)}, "has to be a text"),
    "tokens are numbers": ({"tokenizer.ggml.tokens": array(ValueType.INT32, [1, 2])}, "has to be an array of texts"),
    "no tokens": ({"tokenizer.ggml.tokens": strings([])}, "no list of tokens"),
    "tokens are a text": ({"tokenizer.ggml.tokens": string("abc")}, "has to be an array of texts"),
    "equal tokens": ({"tokenizer.ggml.tokens": strings(["a"] * 265)}, "same text"),
    "scores too short": ({"tokenizer.ggml.scores": array(ValueType.FLOAT32, [1.0])}, "one number for each"),
    "types are a text": ({"tokenizer.ggml.token_type": string("x")}, "has to be an array of whole numbers"),
    "score is NaN": ({"tokenizer.ggml.scores": NOT_A_NUMBER}, "not finite"),
    "not UTF-8": ({"tokenizer.ggml.tokens": strings([b"\xff", b"a"])}, "not UTF-8"),
    "no merges": ({"tokenizer.ggml.model": string("gpt2")}, "no list of merges"),
    "merge without a blank": (GPT2 | {"tokenizer.ggml.merges": strings(["ab"])}, "no merge"),
    "unknown pre-tokenizer": (GPT2 | {"tokenizer.ggml.pre": string("zz")}, "'zz' is not known"),
    "pre-tokenizer that cannot run": (GPT2 | {"tokenizer.ggml.pre": string("whitespace")}, "cannot be run"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_metadata(name: str) -> None:
    changes, says = WRONG[name]
    with pytest.raises((BadTokenizer, UnsupportedFile, MalformedFile)) as caught:
        Tokenizer.from_metadata(spm(WORDS) | changes)
    assert says in caught.value.message


def test_merges_of_unknown_tokens_are_passed_over() -> None:
    merges = {"tokenizer.ggml.merges": strings(["a b", "q zz", "b x"]), "tokenizer.ggml.pre": string("gpt-2")}
    tokenizer = Tokenizer.from_metadata(spm(WORDS) | merges | {"tokenizer.ggml.model": string("gpt2")})
    assert tokenizer.encode("abq", add_special=False) == [AB]  # q has no token: llama.cpp drops such bytes, too


DATA = st.one_of(
    st.builds(string, st.sampled_from(["llama", "gpt2", "gpt-2", "x"])),
    st.builds(lambda n: u32(n), st.integers(0, 400)),
    st.builds(boolean, st.booleans()),
    st.builds(lambda x: strings(x), st.lists(st.sampled_from(["a", "b", "ab", "a b", "", "<s>"]), max_size=4)),
    st.builds(lambda x: array(ValueType.INT32, x), st.lists(st.integers(-9, 9), max_size=4)),
)
ENTRIES = ["model", "pre", "tokens", "scores", "token_type", "merges", "eos_token_id", "add_bos_token"]
KEYS = [f"tokenizer.ggml.{name}" for name in ENTRIES]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "general.name", "tokenizer.chat_template"]), DATA))
def test_any_metadata_is_an_error_or_a_tokenizer(changes: dict[str, Value]) -> None:
    try:
        tokenizer = Tokenizer.from_metadata(spm(WORDS) | changes)
        ids = tokenizer.encode("ab <s> \u00e9", parse_special=True)
        assert all(0 <= i < len(tokenizer) for i in ids)
        tokenizer.decode(ids)
    except QuantcliError as error:
        assert error.message
