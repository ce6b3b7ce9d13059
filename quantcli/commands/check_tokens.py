"""Do the ids of a GGUF vocabulary agree with other readers of the checkpoint's tokenizer?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from quantcli.report.results import CheckStep
from quantcli.vocab.references import Reference
from quantcli.vocab.tokenizer import Tokenizer

#: what goes wrong most often: blanks, line feeds, digits, contractions, scripts without blanks, marks, code, emoji
TEXTS = (
    "Hello world", " Hello world", "  two leading spaces", "trailing space ", "a  b   c    d",
    "tab\there\t\tthere", "one\ntwo\n\nthree\n\n\n four\r\nfive\r\n", "   \n   \n",
    "The quick brown fox jumps over the lazy dog.", "It's they're we'll I'd you've I'm DON'T I'LL",
    "1 12 123 1234 12345 123456 3.14159 1,000,000", "x86_64 v2.0.1 a1b2c3",
    "camelCase snake_case SCREAMING_CASE kebab-case", "https://example.org/a?b=c&d=%20#e",
    "user@example.org #1 $5.99 100%", "for (int i = 0; i < 10; ++i) {\n\tsum += i;\n}",
    "def f(x):\n    return x  # comment\n", "!!! ??? ... --- === ((()))", "Grüße aus München, schöne Äpfel",
    "naïve café Ångström façade", "Привет, как дела?", "Γειά σου Κόσμε", "今天天气很好，我们去公园吧。",
    "東京は日本の首都です。カタカナ", "안녕하세요 세계", "مرحبا بالعالم", "שלום עולם", "สวัสดีชาวโลก",
    "नमस्ते दुनिया", "👍🏽 👩\u200d👩\u200d👧\u200d👦 🇩🇪", "½ ² Ⅷ ﬁ ™ €", "zero\u200bwidth and\u00a0no-break",
    "café and cafe\u0301", "aaaaaaaaaaaaaaaaaaaaaaaa",
)  # fmt: skip
_SHOWN = 4  # texts that differ
_SHOWN_IDS = 12


def steps(tokenizer: Tokenizer, found: Sequence[Reference], remarks: Sequence[str]) -> list[CheckStep]:
    """One step per reader that understands the checkpoint, what the others said, and one that text comes back."""
    result = [_compare(tokenizer, reference) for reference in found]
    if remarks:
        result.append({"name": "readers", "verdict": "note", "summary": "; ".join(remarks), "details": []})
    if not found:
        summary = "there is no other reader of this tokenizer to compare with"
        result.append({"name": "ids", "verdict": "skipped", "summary": summary, "details": []})
    return [*result, _comes_back(tokenizer)]


def texts(tokenizer: Tokenizer) -> list[str]:
    """The texts, and one around special tokens of this vocabulary."""
    names = [tokenizer.texts[token] for token in (tokenizer.bos, tokenizer.eos, tokenizer.eot) if token is not None]
    marks = list(dict.fromkeys(names))
    return [*TEXTS, *(f"Hello{mark}there" for mark in marks)]


def _compare(tokenizer: Tokenizer, reference: Reference) -> CheckStep:
    """Ids with and without special tokens."""
    checked = texts(tokenizer) if reference.parses_special else list(TEXTS)
    details: list[str] = []
    composed = 0
    for text in checked:
        for special in (False, True)[: 1 + reference.adds_special]:
            ours = tokenizer.encode(text, add_special=special, parse_special=reference.parses_special)
            theirs = reference.encode(text, special)
            if ours == theirs:
                continue
            if unicodedata.normalize("NFC", text) != text and not special:
                composed += 1
            elif unicodedata.normalize("NFC", text) == text:
                details.append(_difference(text, special, ours, theirs))
    wrong = len(details)
    summary = f"{len(checked)} texts" + (f", {wrong} differ" if wrong else " have the same ids")
    if composed:
        details.append("text in decomposed Unicode differs: the tokenizer composes it (NFC), llama.cpp does not")
    verdict = "differs" if wrong else "note" if composed else "ok"
    return {"name": f"ids by {reference.name}", "verdict": verdict, "summary": summary, "details": _shortened(details)}


def _difference(text: str, special: bool, ours: Sequence[int], theirs: Sequence[int]) -> str:
    around = " with special tokens" if special else ""
    return f"{text!r}{around}: {_shown(ours)} in the GGUF file, {_shown(theirs)} there"


def _shown(ids: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, ids[:_SHOWN_IDS])) + (", ...]" if len(ids) > _SHOWN_IDS else "]")


def _shortened(details: list[str]) -> list[str]:
    more = len(details) - _SHOWN
    return [*details[:_SHOWN], f"and {more} more"] if more > 1 else details


def _comes_back(tokenizer: Tokenizer) -> CheckStep:
    """Text -> ids -> text. Vocabularies that normalize (WordPiece, unigram) give another text back: no fault."""
    lost = [
        f"{text!r} comes back as {back!r}"
        for text in TEXTS
        if (back := tokenizer.decode(tokenizer.encode(text, add_special=False))) != text
    ]
    normalizes = tokenizer.kind in ("bert", "t5")
    changed = "come back as the tokenizer normalizes them" if normalizes else "do not come back as they were"
    summary = f"{len(TEXTS)} texts, " + (f"{len(lost)} {changed}" if lost else "all come back")
    verdict = "ok" if not lost or normalizes else "note"
    return {
        "name": "decoding",
        "verdict": verdict,
        "summary": summary,
        "details": [] if normalizes else _shortened(lost),
    }
