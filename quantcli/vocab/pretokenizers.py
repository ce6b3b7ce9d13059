r"""The BPE pre-tokenizers that llama.cpp knows by name, as data, and how a structure of tokenizer.json finds its name.

``REGEXES`` holds, per name, the expressions that llama.cpp applies one after the other (each splits the pieces that the
one before left; matches and the gaps between them are pieces). A tokenizer.json whose Splits are these expressions, in
any spelling (see patterns.py), followed by ByteLevel, has that name's structure; ``OTHER_STRUCTURES`` are
those that Hugging Face writes differently. Many names share one structure: ``CHOICES`` says which name is written for
which GGUF architecture. Source of the expressions: llama.cpp and the published tokenizer.json files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# ---- building blocks -------------------------------------------------------------------------------------------

_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL3 = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_CL1 = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}|{_SIGNS}|{_SPACES}"
_QWEN35 = rf"{_CONTRACTIONS}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
_CASED_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"


def _o200(digits: str) -> str:
    """Words by runs of upper and lower case, contractions as suffix."""
    end = f"{_CONTRACTIONS}?"
    return f"{_BEFORE}{_UPPER}*{_LOWER}+{end}|{_BEFORE}{_UPPER}+{_LOWER}*{end}|{digits}|{_CASED_SIGNS}|{_SPACES}"


_O200 = _o200(r"\p{N}{1,3}")
_TEKKEN = rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}|{_CASED_SIGNS}|{_SPACES}"
_ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK3_WORDS = rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK3 = rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
_SPARK = rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+"
_CJK3 = "[一-龥぀-ゟ゠-ヿ]+"
_CJK = "[一-龥ࠀ-一가-퟿]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
DEEPSEEK_LATIN = (  # three characters are escaped, because Unicode normalization of this file would change them
    r"\s?"
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7d"
    "ᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-"
    "ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
_DEEPSEEK_SIGNS = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
_JAIS2 = (
    rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}|\s*[\r\n]+|"
    + "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4))
    + r"\s{1,2}(?!\S)|\s{1}"
)
_HAN_FREE = r"&&[^\p{Han}]]"
_KIMI = (
    rf"[\p{{Han}}]+|{_BEFORE}{_UPPER[:-1]}{_HAN_FREE}*{_LOWER[:-1]}{_HAN_FREE}+{_CONTRACTIONS}?"
    rf"|{_BEFORE}{_UPPER[:-1]}{_HAN_FREE}+{_LOWER[:-1]}{_HAN_FREE}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
)
_BAILING = (
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"
    rf"|{_BEFORE}\p{{L}}+|\p{{N}}|{_SIGNS}|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED = rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|{_BEFORE}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_YOUTU = rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_CJK3}"
_CHAMELEON = (
    r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]", GPT2,
)  # fmt: skip
_LINES = r"[^\n]+|[\n]+"
_GROUPS_OF_3 = r"\d{1,3}(?=(?:\d{3})*\b)"  # digits, counted from the right


def _asian(compatibility: str) -> str:
    """Runs of the scripts that write without blanks; ``compatibility`` begins the range of compatibility ideographs."""
    return (
        rf"[\u4e00-\u9fff\u3400-\u4dbf{compatibility}-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
        r"\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
    )


# ---- names -----------------------------------------------------------------------------------------------------

# expressions -> the names that llama.cpp applies them for (the first is the group's own name)
GROUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"), "default"),
    ((_CL3,), "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe"
              " chatglm-bpe glm4 glm5"),
    ((_JAIS2,), "jais-2"),
    ((_CL1,), "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    ((_QWEN35,), "qwen35"),
    ((_CL1.removeprefix(_CONTRACTIONS + "|"),), "ufakzeka"),
    ((GPT2,), "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo"
              " jais trillion granite-docling jina-v1-en jina-v2-code roberta-bpe"),
    ((r"\p{N}", GPT2), "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    ((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"), "falcon"),
    ((r"[\r\n]", DEEPSEEK_LATIN, _DEEPSEEK_SIGNS, r"\s+$", _CJK, r"\p{N}+"), "deepseek-llm"),
    ((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"), "deepseek-coder"),
    ((r"\p{N}{1,3}", _CJK3, _DEEPSEEK3), "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    ((r"\p{N}{1,3}", _CJK3, _SPARK, r"\p{N}"), "spark2_5"),
    ((_BLOOM,), "bloom poro-chat gpt3-finnish"),
    ((_BLOOM, r"\p{N}"), "viking"),
    ((_TEKKEN,), "tekken"),
    ((_O200,), "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m"),
    ((_GROUPS_OF_3, _O200), "tiny_aya cohere2moe"),
    ((r"\p{N}+", r"(?=(\d{3})+(?!\d))"), "superbpe"),
    ((_BAILING,), "bailingmoe bailingmoe2 llada-moe"),
    ((_SEED,), "seed-coder"),
    ((_EXAONE_MOE,), "exaone-moe"),
    ((_KIMI,), "kimi-k2"),
    ((_YOUTU, _o200(r"\p{N}")), "youtu"),
    ((r"\p{N}{1,3}", _CL3.replace(r"\p{N}{1,3}", r"\p{N}+")), "minicpm5"),
    ((_LINES, _CL1), "laguna"),
    (_CHAMELEON, "chameleon"),
    ((_GROUPS_OF_3, _asian(r"\u8c48"), _DEEPSEEK3), "afmoe"),  # llama.cpp has the first one normalized
    # words of plain text, without a mapping of bytes
    ((), "gemma4 granite-embed-multi-311m sarvam-moe whitespace"),
)  # fmt: skip

REGEXES: dict[str, tuple[str, ...]] = {name: regexes for regexes, names in GROUPS for name in names.split()}
NAMES = tuple(REGEXES)
IGNORE_MERGES = frozenset(
    (
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        "glm4", "glm5", "tekken", "granite-embed-multi-97m", "youtu", "minicpm5",
    )
)  # fmt: skip
ADD_BOS = frozenset(
    (
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        "tekken", "chameleon",
    )
)  # fmt: skip
PLAIN_TEXT = frozenset(("gemma4", "granite-embed-multi-311m", "sarvam-moe"))  # U+2581 for blanks, merges over lines
NO_DEFAULT_BOS = frozenset(("chatglm-bpe", "glm4", "glm5"))

# slow tokenizer classes whose vocab.json and merges.txt stand without a tokenizer.json
CLASSES = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2"}


# ---- structures ------------------------------------------------------------------------------------------------

# pre-tokenizer steps (as structure.py names them) that are not simply the expressions above, then ByteLevel
OTHER_STRUCTURES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "falcon": (
        ("punctuation", "Contiguous"), ("split", GPT2), ("bytelevel", ""), ("split", r"\p{N}+"),
        ("split", r"[0-9][0-9][0-9]"),
    ),
    "deepseek-llm": (
        ("split", r"[\r\n]"), ("split", DEEPSEEK_LATIN), ("split", _DEEPSEEK_SIGNS), ("split", r"\s+$"),
        ("split", _CJK), ("split", r"\p{N}"), ("bytelevel", ""),
    ),
}  # fmt: skip

# further structures of names that have one already. Moonshot publishes ranks alone: a tokenizer.json made from them
# does not exclude Han characters from words
FURTHER_STRUCTURES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "kimi-k2": (("split", _O200), ("bytelevel", "")),
    "afmoe": (
        ("split", _GROUPS_OF_3), ("split", _asian(r"\uf900")), ("split", _DEEPSEEK3), ("bytelevel", ""),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """Which name is written for the structure of ``default``.

    ``normalizer`` and ``ignore_merges`` narrow it to tokenizers that have exactly this (None: any of NFC and none,
    any setting). ``architectures`` maps a GGUF architecture to its name; all others get ``default``.
    """

    default: str
    normalizer: tuple[str, ...] | None = None
    ignore_merges: bool | None = None
    architectures: Mapping[str, str] = field(default_factory=dict)


# the first one that fits wins; a name without a choice is the only one of its structure
CHOICES: tuple[Choice, ...] = (
    Choice("llama-bpe", ignore_merges=True, architectures={
        "falcon-h1": "falcon-h1", "lfm2": "lfm2", "lfm2moe": "lfm2", "chatglm": "glm4", "glm4": "glm4",
        "glm4moe": "glm4", "glm-dsa": "glm4", "dbrx": "dbrx",
    }),
    Choice("dbrx", ignore_merges=False, architectures={
        "llama": "smaug-bpe", "chatglm": "chatglm-bpe", "glm4": "glm4", "glm4moe": "glm4", "glm-dsa": "glm4",
    }),
    Choice("qwen2", normalizer=("NFC",), architectures={
        "hunyuan-moe": "hunyuan", "grok": "grok-2", "bailingmoe": "bailingmoe", "bailingmoe2": "bailingmoe2",
    }),
    Choice("stablelm2", architectures={
        "qwen2": "deepseek-r1-qwen", "qwen3": "deepseek-r1-qwen", "hunyuan-moe": "hunyuan", "grok": "grok-2",
        "bailingmoe": "bailingmoe", "bailingmoe2": "bailingmoe2", "llada-moe": "llada-moe",
    }),
    Choice("olmo", normalizer=("NFC",), architectures={"mpt": "mpt", "modern-bert": "modern-bert"}),
    Choice("gpt-2", architectures={
        "phi2": "phi-2", "exaone4": "exaone4", "gptneox": "olmo", "olmo": "olmo", "olmoe": "olmo", "mamba": "olmo",
        "mpt": "mpt", "jais": "jais", "modern-bert": "modern-bert", "bert": "roberta-bpe",
    }),
    Choice("command-r", normalizer=("NFC",)),
    Choice("starcoder", architectures={
        "llama": "smollm", "granite": "refact", "granitemoe": "refact", "granitehybrid": "refact", "refact": "refact",
        "command-r": "command-r", "cohere2": "command-r", "codeshell": "codeshell", "exaone": "exaone",
        "mellum": "mellum2",
    }),
    Choice("deepseek-v3", architectures={
        "hunyuan-dense": "hunyuan-dense", "hunyuan-moe": "hunyuan-dense", "hy_v3": "hunyuan-dense",
    }),
    Choice("bloom"),
    Choice("gpt-4o", architectures={"llama4": "llama4", "minimax-m2": "minimax-m2", "kimi-linear": "kimi-k2"}),
    Choice("tiny_aya", architectures={"cohere2moe": "cohere2moe"}),
)  # fmt: skip
