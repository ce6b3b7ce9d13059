"""Vocabularies that take the longest token that fits, again and again: WordPiece and RWKV's, as llama.cpp runs them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from quantcli.vocab import rwkv

_BLANK = "\u2581"
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_LAST_ASCII = 0x7F
_WHITE_SPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(c) for c in range(0x2000, 0x200B)
}


class WordPiece:
    """BERT's words: cut at white space, punctuation and Chinese characters; each is taken apart from its start.

    ``ids`` maps token texts in GGUF's form (U+2581 in front of a word's start, nothing in front of what continues one).
    """

    def __init__(self, ids: Mapping[str, int], unknown: int | None, *, lowercase: bool, strip_accents: bool) -> None:
        self._ids = ids
        self._unknown = [] if unknown is None else [unknown]
        self._longest = max(map(len, ids))
        self._lowercase, self._strip_accents = lowercase, strip_accents

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; a word that cannot be taken apart to its end is one unknown token."""
        return [token for word in self._words(text) for token in self._pieces(_BLANK + word)]

    def _pieces(self, word: str) -> list[int]:
        result: list[int] = []
        start = 0
        while start < len(word):
            for stop in range(min(len(word), start + self._longest), start, -1):
                token = self._ids.get(word[start:stop])
                if token is not None:
                    result.append(token)
                    start = stop
                    break
            else:
                return self._unknown
        return result or self._unknown

    def _words(self, text: str) -> list[str]:
        """Normalized words and single signs."""
        words = [""]
        for character in unicodedata.normalize("NFD", text) if self._strip_accents else text:
            category = unicodedata.category(character)
            if character in _WHITE_SPACE:
                words.append("")
            elif character == "\ufffd" or category[0] == "C" or (self._strip_accents and category[0] == "M"):
                continue
            else:
                shown = (character.lower()[:1] or character) if self._lowercase else character
                words[-1:] = [words[-1], shown, ""] if _stands_alone(character, category) else [words[-1] + shown]
        return [word for word in words if word]


def _stands_alone(character: str, category: str) -> bool:
    """Punctuation, ASCII symbols and Chinese characters are words of their own."""
    code = ord(character)
    return (
        category[0] == "P"
        or (category[0] == "S" and code < _LAST_ASCII)
        or any(first <= code <= last for first, last in _CHINESE)
    )


class Words:
    """RWKV's vocabulary: the longest token of the bytes that come."""

    def __init__(self, texts: Sequence[str], unknown: int | None) -> None:
        self._ids = {rwkv.bytes_of(text): index for index, text in enumerate(texts)}
        self._unknown = [] if unknown is None else [unknown]
        lengths: dict[int, set[int]] = {}
        for data in self._ids:
            if data:
                lengths.setdefault(data[0], set()).add(len(data))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; a byte without a token is an unknown token."""
        data = text.encode("utf-8", "replace")
        result: list[int] = []
        start = 0
        while start < len(data):
            fits = (data[start : start + length] for length in self._lengths.get(data[start], ()))
            found = next((piece for piece in fits if piece in self._ids), None)
            result += self._unknown if found is None else [self._ids[found]]
            start += 1 if found is None else len(found)
        return result
