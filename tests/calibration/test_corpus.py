"""The bundled text and conversations: size, languages, form, no repetition; what importance matrices read of it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from quantcli.calibration import corpus
from quantcli.calibration.collect import importance_chunks
from quantcli.errors import BadTokenizer, MissingFile
from quantcli.runner.session import RunOptions, open_session
from quantcli.runner.text import chunks_of

LONGEST_LINE = 2500  # characters: a paragraph of prose is one line
PARAGRAPH = 200
FIRST = "f4642d0a"  # of the SHA-256 of what an importance matrix reads
SCRIPTS = (
    "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI BENGALI TAMIL TELUGU THAI KHMER GEORGIAN ARMENIAN ETHIOPIC "
    "CJK HIRAGANA KATAKANA HANGUL"
)
# words that hardly occur outside the language
WORDS = {
    "de": "nicht|wird|auch", "fr": "les|une|qui", "es": "los|había|pero", "it": "che|perché|della", "pt": "não|uma|dos",
    "nl": "het|niet|een", "pl": "się|jest|nie", "cs": "když|které|jsou|však|ještě", "sv": "och|inte|som",
    "fi": "mutta|että|kun|jos|koska", "hu": "egy|hogy|nem", "ro": "și|este|pentru", "tr": "bir|ve|için",
    "vi": "không|của|một", "id": "yang|dengan|dan", "sw": "kwa|na|kila", "ru": "что|это|как", "uk": "що|від|щоб",
    "el": "και|της|που", "ar": "في|من|على", "fa": "این|است|را", "he": "של|את|הוא", "hi": "है|और|में",
}  # fmt: skip
UNSPACED = {"zh": "的", "ja": "した", "ko": "다\\.", "th": "ที่"}


@pytest.fixture(scope="module")
def text() -> str:
    return corpus.bundled()


def test_size_and_form(text: str) -> None:
    data = Path(corpus.bundled_text()).read_bytes()
    assert data.decode("utf-8") == text + "\n" and len(data) > 400_000
    assert unicodedata.is_normalized("NFC", text)
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs")} - {"\n", "\t"}
    assert "\ufeff" not in text and "\ufffd" not in text
    assert not [line for line in text.split("\n") if line != line.rstrip() or len(line) > LONGEST_LINE]
    assert "\n\n\n\n" not in text


def test_tokens_of_a_small_vocabulary(shared: Path, text: str) -> None:
    with open_session(shared / "models" / "mid", RunOptions(length=64)) as session:
        assert len(session.tokenizer.encode(text, add_special=False)) >= 200_000


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_scripts(text: str, script: str) -> None:
    letters = sum(unicodedata.name(c, "").startswith(script) for c in text if c.isalpha())
    assert letters >= 40


@pytest.mark.parametrize("language", [*WORDS, *UNSPACED])
def test_languages(text: str, language: str) -> None:
    pattern = UNSPACED.get(language) or rf"(?<!\w)(?:{WORDS[language]})(?!\w)"
    assert len(re.findall(pattern, text)) >= 8


def test_every_part_is_mixed(text: str) -> None:
    """Each of six equal parts has code, formulas, English and at least seven scripts."""
    size = len(text) // 6
    for part in (text[i * size : (i + 1) * size] for i in range(6)):
        scripts = {unicodedata.name(c, "").split()[0] for c in set(part) if c.isalpha()}
        assert len(scripts & set(SCRIPTS.split())) >= 7
        assert part.count("```") >= 6 and len(re.findall(r"\$[^$\n]+\$|\\\[", part)) >= 10
        assert len(re.findall(r"\b(?:the|and|of)\b", part)) >= 400


def repeated(paragraphs: Sequence[str]) -> list[str]:
    """Those of at least PARAGRAPH characters whose letters, digits and blanks aside, occurred before."""
    seen: set[str] = set()
    found = []
    for paragraph in paragraphs:
        key = re.sub(r"[\W\d]+", " ", paragraph.casefold())
        if len(key) >= PARAGRAPH and key in seen:
            found.append(paragraph)
        seen.add(key)
    return found


def test_nothing_is_repeated(text: str) -> None:
    assert repeated(re.split(r"\n{2,}", text)) == []
    turns = [m["content"] for c in corpus.dialogues() for m in c.messages]
    assert repeated([*re.split(r"\n{2,}", text), *turns]) == []
    # no twelve words twice, letters only: templates with exchanged nouns have such
    words = re.findall(r"[^\W\d_]+", text.casefold())
    runs = [tuple(words[i : i + 12]) for i in range(len(words) - 11)]
    assert len(runs) - len(set(runs)) <= 0.002 * len(runs)


def test_conversations_alternate() -> None:
    conversations = corpus.dialogues()
    assert len(conversations) >= 60
    assert len({c.language for c in conversations}) >= 20
    assert sum(c.messages[0]["role"] == "system" for c in conversations) >= len(conversations) / 3
    assert sum(len(c.messages) >= 4 for c in conversations) >= 0.9 * len(conversations)
    for conversation in conversations:
        roles = [message["role"] for message in conversation.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) and turns
        for message in conversation.messages:
            assert set(message) == {"role", "content"} and message["content"].strip() == message["content"] != ""
            assert unicodedata.is_normalized("NFC", message["content"])
            assert not {c for c in message["content"] if unicodedata.category(c) == "Cc"} - {"\n"}


def test_rendering_falls_back() -> None:
    conversations = corpus.dialogues()
    plain = corpus.rendered()
    assert plain == [c.plain() for c in conversations] and plain[0].startswith(("User: ", "System: "))

    def marked(messages: Sequence[corpus.Message]) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def without_system(messages: Sequence[corpus.Message]) -> str:
        if messages[0]["role"] == "system":
            raise BadTokenizer("no such role")
        return marked(messages)

    assert corpus.rendered(marked) == [marked(c.messages) for c in conversations]
    assert corpus.rendered(lambda _: None) == plain
    for conversation, told in zip(conversations, corpus.rendered(without_system), strict=True):
        assert told.startswith("<user>" + conversation.messages[0]["content"]) and "<system>" not in told
        assert all(message["content"] in told for message in conversation.messages)


def test_importance_matrices_read_what_they_always_read(root: Path, text: str) -> None:
    """The beginning, to the letter: a default matrix, and the files made with it, stay what they are."""
    beginning = text[: corpus.IMPORTANCE_CHARACTERS]
    assert hashlib.sha256(beginning.encode()).hexdigest().startswith(FIRST)
    with open_session(root / "examples" / "tiny", RunOptions(activations="float", length=512)) as session:
        found = importance_chunks(session.tokenizer, None, 512)
        whole = chunks_of(session.tokenizer, corpus.bundled_text(), 512)
        assert len(whole) > 2 * len(found) and found.name == whole.name
        assert (whole.tokens[: len(found) - 1] == found.tokens[:-1]).all()
        assert len(importance_chunks(session.tokenizer, corpus.bundled_text(), 512)) == len(whole)


def test_missing_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BUNDLED", "/nowhere/calibration.txt")
    with pytest.raises(MissingFile, match="is not there"):
        corpus.bundled()
