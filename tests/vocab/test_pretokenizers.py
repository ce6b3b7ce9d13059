"""Pre-tokenizers: structures as the published tokenizer.json files spell them find their llama.cpp name, and the
expressions that llama.cpp applies for that name split text at the same places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.vocabularies import byte_level, folder_of
from quantcli.errors import UnknownPreTokenizer
from quantcli.vocab import bpe, pretokenizers, structure, tokenizer_files
from quantcli.vocab.bytelevel import byte_to_character
from quantcli.vocab.patterns import canonical

CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"[^\r\n\p{L}\p{N}]?"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CASED}|{WORD}\p{{L}}+|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{CASED}|{WORD}\p{{L}}+|\p{{N}}|{REST}"
O200 = rf"{WORD}{UPPER}*{LOWER}+{CASED}?|{WORD}{UPPER}+{LOWER}*{CASED}?|\p{{N}}{{1,3}}|{SLASHES}"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NFC = {"type": "NFC"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTES_SPLIT = BYTES | {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


# case -> (expected name, architecture, normalizer, pre-tokenizer, ignore_merges)
PUBLISHED: dict[str, tuple[str, str, Any, dict[str, Any], bool]] = {
    "llama 3": ("llama-bpe", "llama", None, sequence(split(LLAMA3), BYTES), True),
    "smollm3": ("llama-bpe", "smollm3", None, sequence(split(LLAMA3), BYTES), True),
    "lfm2": ("lfm2", "lfm2", None, sequence(split(LLAMA3), BYTES), True),
    "falcon h1": ("falcon-h1", "falcon-h1", None, sequence(split(LLAMA3), BYTES), True),
    "dbrx, as its conversion spells it": ("dbrx", "dbrx", None, sequence(split(LLAMA3, "Removed", True), BYTES), False),
    "olmo 2": ("dbrx", "olmo2", None, sequence(split(LLAMA3), BYTES), False),
    "smaug": ("smaug-bpe", "llama", None, sequence(split(LLAMA3), BYTES), False),
    "glm 4": ("glm4", "glm4", None, sequence(split(LLAMA3), BYTES), False),
    "chatglm": ("chatglm-bpe", "chatglm", None, sequence(split(LLAMA3), BYTES), False),
    "qwen 2, 2.5, 3": ("qwen2", "qwen3", NFC, sequence(split(QWEN2), BYTES), False),
    "stablelm 2": ("stablelm2", "stablelm", None, sequence(split(QWEN2), BYTES), False),
    "deepseek r1 distilled into qwen": ("deepseek-r1-qwen", "qwen2", None, sequence(split(QWEN2), BYTES), False),
    "bailing": ("bailingmoe", "bailingmoe", None, sequence(split(
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ), BYTES), False),
    "qwen 3.5": ("qwen35", "qwen35", NFC, sequence(split(
        rf"{CASED}|{WORD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"), BYTES), False),
    "gpt-oss": ("gpt-4o", "gpt-oss", None, sequence(split(O200), BYTES), True),
    "llama 4": ("llama4", "llama4", None, sequence(split(O200), BYTES), True),
    "phi 4 mini": ("gpt-4o", "phi3", None, sequence(split(O200, "Removed", True), BYTES), False),
    "minimax": ("minimax-m2", "minimax-m2", None, sequence(split(O200), BYTES), False),
    "tekken": ("tekken", "llama", None, sequence(split(
        rf"{WORD}{UPPER}*{LOWER}+|{WORD}{UPPER}+{LOWER}*|\p{{N}}|{SLASHES}"), BYTES), True),
    "gpt-2": ("gpt-2", "gpt2", None, BYTES_SPLIT, False),
    "phi 2": ("phi-2", "phi2", None, BYTES_SPLIT, False),
    "gpt-neox, pythia": ("olmo", "gptneox", NFC, BYTES_SPLIT, False),
    "olmo": ("olmo", "olmo", NFC, BYTES_SPLIT, False),
    "mpt": ("mpt", "mpt", NFC, BYTES_SPLIT, False),
    "starcoder": ("starcoder", "starcoder2", None, sequence(DIGITS, BYTES_SPLIT), False),
    "granite": ("refact", "granite", None, sequence(DIGITS, BYTES_SPLIT), False),
    "smollm": ("smollm", "llama", None, sequence(DIGITS, BYTES_SPLIT), False),
    "command-r": ("command-r", "command-r", NFC, sequence(DIGITS, BYTES_SPLIT), False),
    "codeshell": ("codeshell", "codeshell", None, sequence(DIGITS, BYTES_SPLIT), False),
    "falcon": ("falcon", "falcon", None, sequence(
        {"type": "Punctuation", "behavior": "Contiguous"}, BYTES_SPLIT, {"type": "Digits", "individual_digits": False},
        split("[0-9][0-9][0-9]")), False),
    "deepseek llm": ("deepseek-llm", "llama", None, sequence(
        split("[\r\n]"), split(pretokenizers.DEEPSEEK_LATIN), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"),
        split("[一-龥ࠀ-一가-\ud7ff]+"), DIGITS, BYTES), False),
    "deepseek coder": ("deepseek-coder", "llama", None, sequence(
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\ud7ff]+"), DIGITS, BYTES),
        False),
    "deepseek v3": ("deepseek-v3", "deepseek2", None, sequence(
        split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK3), BYTES), False),
    "hunyuan": ("hunyuan-dense", "hunyuan-dense", None, sequence(
        split(r"\p{N}{1,3}"), split(r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK3), BYTES), False),
    "bloom": ("bloom", "bloom", None, sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), BYTES), False),
    "viking": ("viking", "llama", None, sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), DIGITS, BYTES), False),
    "seed coder": ("seed-coder", "llama", None, sequence(split(
        rf"{CASED}|{WORD}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"), BYTES), False),
    "superbpe": ("superbpe", "olmo2", None, sequence(split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), BYTES), False),
}  # fmt: skip

# llama.cpp's expressions differ from the published file here: deepseek-llm keeps runs of digits together (its
# vocabulary has no merges of digits), and falcon's Digits step runs on mapped bytes, some of which look like digits
SPLITS_OTHERWISE = {"falcon", "deepseek llm"}

TEXTS = [
    "Hello world", "  It's they're WE'LL I'd  you'Ve\n\n  x\r\n", "1234567 3.14 ½ ² Ⅷ ١٢٣", "naïve ÄPFEL straße ﬁ K Ω",
    "今天天气 テキスト한국어。", "Привет, как дела?\t\tΓειά σου", "snake_case camelCaseWORDS x86_64",
    "a  b   c    d     ",
    "#include <a/b.h>\n\tif (x) {\r\n}\n", "",
    "café e\u0301 😀👍🏽 \u00a0\u2003\u200b", "'s 'S ''re x'sx don'T", "/ // /\n/", "…۔، (a|b) [c]", "مرحبا שלום ไทย",
]  # fmt: skip


def read(path: Path, normalizer: Any, pre_tokenizer: Any, ignore_merges: bool) -> structure.Structure:
    content = byte_level(normalizer=normalizer, pre_tokenizer=pre_tokenizer, ignore_merges=ignore_merges)
    return structure.read(tokenizer_files.read(folder_of(path, tokenizer_json=content)))


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_structure_finds_its_name(tmp_path: Path, case: str) -> None:
    name, architecture, normalizer, pre_tokenizer, ignore_merges = PUBLISHED[case]
    found = read(tmp_path, normalizer, pre_tokenizer, ignore_merges)
    assert structure.recognise(found, architecture) == name


@pytest.mark.parametrize("case", sorted(PUBLISHED.keys() - SPLITS_OTHERWISE))
def test_names_expressions_split_like_the_published_structure(case: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    name, _, _, pre_tokenizer, ignore_merges = PUBLISHED[case]
    theirs = tokenizers.Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "decoder": None,
        **byte_level(pre_tokenizer=pre_tokenizer, ignore_merges=ignore_merges, added_tokens=[]),
    }))  # fmt: skip
    ours = bpe.build({c: i for i, c in enumerate(byte_to_character().values())}, [], name)
    for text in TEXTS:
        pieces = [[piece for piece, _ in t.pre_tokenizer.pre_tokenize_str(text)] for t in (ours, theirs)]
        assert pieces[0] == pieces[1], text


@pytest.mark.parametrize("name", [name for name, regexes in pretokenizers.REGEXES.items() if regexes])
def test_every_name_can_run(name: str) -> None:
    ids = {c: i for i, c in enumerate(byte_to_character().values())}
    model = bpe.build(ids, [], name)
    letters = {i: byte for byte, i in zip(byte_to_character(), ids.values(), strict=True)}
    for text in TEXTS:
        found = model.encode(text, add_special_tokens=False).ids
        assert bytes(letters[i] for i in found).decode() == text  # no character is lost


def test_every_choice_names_known_pre_tokenizers() -> None:
    known = structure.known_structures()
    for choice in pretokenizers.CHOICES:
        group = next(names for names in known.values() if choice.default in names)
        assert set(choice.architectures.values()) <= group, choice.default
    assert set(pretokenizers.CLASSES.values()) <= set(pretokenizers.NAMES)
    flags = pretokenizers.IGNORE_MERGES | pretokenizers.ADD_BOS | pretokenizers.NO_DEFAULT_BOS
    assert flags <= set(pretokenizers.NAMES)


SAME = [
    (LLAMA3, LLAMA3.replace(CASED, r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")),
    (LLAMA3, LLAMA3.replace(CASED, r"'(?i:[sdmt]|ll|ve|re)")),
    (LLAMA3, LLAMA3.replace(CASED, r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])")),
    (LLAMA3, r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
             r"|\s*[\r\n]|\s+(?!\S)|\s"),
    (r"[^\r\n\p{L}]", r"[^\p{Letter}\n\r]"),
    ("[\\r\\n/]*", "[/\n\r]*"),
    (r"[一-龥]+", r"[\u4e00-\u9fa5]+"),
    (r"[\p{Han}]+", r"\p{Script=Han}+"),
    (r"a{1}b{1,}", r"ab+"),
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\s+(?!\S)", r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\s+(?!\S)|\s+"),
]  # fmt: skip
DIFFERENT = [
    (LLAMA3, QWEN2),
    (LLAMA3, LLAMA3.replace(CASED, "(?:'s|'t|'re|'ve|'m|'ll|'d)")),
    (LLAMA3, LLAMA3.replace(CASED, "(?i:'s|'t|'re|'ve|'m|'ll)")),
    (LLAMA3, LLAMA3.replace(r"[\r\n]*", r"[\r\n/]*")),
    (r"\p{L}+", r"\p{Lu}+"),
    (r"\p{N}", r"\d"),
    (r"\s*[\r\n]x", r"\s*[\r\n]+x"),
    (r"[^ab]", r"[ab]"),
    (r"a|b", r"b|a"),
    (r"a~", r"a"),
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME)
def test_equal_spellings(pair: tuple[str, str]) -> None:
    assert canonical(pair[0]) == canonical(pair[1])


@pytest.mark.parametrize("pair", DIFFERENT)
def test_different_expressions_stay_different(pair: tuple[str, str]) -> None:
    assert canonical(pair[0]) != canonical(pair[1])


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("[]()|?*+{}\\^-psLN1,:i'ste \n~é"), max_size=40))
def test_canonical_takes_any_text(text: str) -> None:
    assert isinstance(canonical(text), str)


def test_canonical_is_bounded() -> None:
    assert canonical("(" * 100_000) == "(" * 100_000
    assert isinstance(canonical("[" * 15_000), str)
    assert isinstance(canonical("(?i:" + "[ab]" * 4000 + ")"), str)


UNKNOWN = {
    "other regex": (None, sequence(split(r"\p{L}+|\p{Zs}"), BYTES)),
    "no pre-tokenizer": (None, None),
    "white space": (None, {"type": "Whitespace"}),
    "metaspace": (None, {"type": "Metaspace", "replacement": "\u2581"}),
    "no bytes": (None, split(LLAMA3)),
    "lower case": ({"type": "Lowercase"}, BYTES_SPLIT),
    "other behaviour": (None, sequence(split(LLAMA3, "MergedWithNext"), BYTES)),
    "nested": (None, sequence(sequence(sequence(split("x"), BYTES)))),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_structure(tmp_path: Path, case: str) -> None:
    normalizer, pre_tokenizer = UNKNOWN[case]
    found = read(tmp_path, normalizer, pre_tokenizer, False)
    with pytest.raises(UnknownPreTokenizer) as caught:
        structure.recognise(found, "llama")
    assert "--pre-tokenizer" in (caught.value.hint or "")
    if case == "other regex":
        assert r"\p{L}+|\p{Zs}" in caught.value.message


def test_near_miss_names_the_nearest(tmp_path: Path) -> None:
    found = read(tmp_path, NFC, sequence(split(QWEN2.replace(r"\p{N}", r"\p{N}{1,2}", 2)), BYTES), False)
    with pytest.raises(UnknownPreTokenizer) as caught:
        structure.recognise(found, "qwen2")
    assert "qwen2" in (caught.value.hint or "") or "llama-bpe" in (caught.value.hint or "")
