"""The best way to cut a text into tokens by the sum of their scores: unigram vocabularies and PLaMo 2's.

As llama.cpp runs them (kinds ``t5`` and ``plamo2``), ties included.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

from quantcli.errors import BadTokenizer
from quantcli.vocab.token_table import TokenType

BLANK = "\u2581"
_UNKNOWN_PENALTY = 10.0  # an unknown character scores this much below the worst piece
_MATCHED = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
_PLAMO_SCALE, _PLAMO_UNKNOWN = 1e4, -10_000_000  # PLaMo 2 adds scores as whole numbers


class _Pieces:
    """Texts with a value each; ``at`` finds those that stand at a place of a text, shortest first."""

    def __init__(self, values: Mapping[str, tuple[int, float]]) -> None:
        self._values = values
        lengths: dict[str, set[int]] = {}
        for text in values:
            lengths.setdefault(text[:1], set()).add(len(text))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}

    def at(self, text: str, start: int) -> Iterable[tuple[int, int, float]]:
        """(length, token, score) of each piece that stands at ``start``."""
        for length in self._lengths.get(text[start], ()):
            if start + length > len(text):
                return
            found = self._values.get(text[start : start + length])
            if found is not None:
                yield length, *found


class Unigram:
    """SentencePiece's unigram model. ``charsmap`` is its table of replaced characters."""

    def __init__(
        self,
        texts: Sequence[str],
        scores: Sequence[float],
        types: Sequence[int],
        unknown: int | None,
        *,
        charsmap: bytes,
        prefix: bool,
        merge_blanks: bool,
    ) -> None:
        self._pieces = _Pieces(
            {
                text: (index, 0.0 if kind == TokenType.USER_DEFINED else scores[index])
                for index, (text, kind) in enumerate(zip(texts, types, strict=True))
                if kind in _MATCHED
            }
        )
        normal = [scores[index] for index, kind in enumerate(types) if kind == TokenType.NORMAL]
        self._penalty = min(normal, default=0.0) - _UNKNOWN_PENALTY
        self._unknown = unknown
        self._characters = CharacterMap(charsmap)
        self._prefix, self._merge_blanks = prefix, merge_blanks

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; neighbouring unknown characters are one unknown token."""
        text = self._normalized(text)
        best = [-math.inf] * (len(text) + 1)
        best[0] = 0.0
        came: list[tuple[int, int | None]] = [(0, self._unknown)] * (len(text) + 1)
        for start in range(len(text)):
            single = False
            for length, token, score in self._pieces.at(text, start):
                single = single or length == 1
                if best[start] + score > best[start + length]:
                    best[start + length], came[start + length] = best[start] + score, (start, token)
            if not single and best[start] + self._penalty > best[start + 1]:
                best[start + 1], came[start + 1] = best[start] + self._penalty, (start, self._unknown)
        return self._walk_back(came)

    def _walk_back(self, came: Sequence[tuple[int, int | None]]) -> list[int]:
        result: list[int] = []
        position, before = len(came) - 1, False
        while position > 0:
            position, token = came[position]
            unknown = token == self._unknown
            if token is not None and not (unknown and before):
                result.append(token)
            before = unknown
        return result[::-1]

    def _normalized(self, text: str) -> str:
        """Characters replaced, blanks as U+2581, one in front where the model has it so."""
        result: list[str] = []
        in_word = started = False
        for character in self._characters.replace(text):
            if character == " ":
                in_word = False
                if not self._merge_blanks:
                    result.append(BLANK)
                continue
            if not in_word and (self._merge_blanks or (self._prefix and not started)):
                result.append(BLANK)
                started = True
            in_word = True
            result.append(character)
        return "".join(result)


class CharacterMap:
    """SentencePiece's ``precompiled_charsmap``: a double array over bytes, then replacements that end with a zero byte.

    Format: sentencepiece's normalizer and Darts (Susumu Yata's double array). Raises BadTokenizer for a broken one.
    """

    def __init__(self, data: bytes) -> None:
        size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
        if data and (size % 4 or 4 + size > len(data)):
            raise BadTokenizer("its table is larger than it", where="tokenizer.ggml.precompiled_charsmap")
        self._nodes: tuple[int, ...] = struct.unpack_from(f"<{size // 4}I", data, 4) if size else ()
        self._texts = data[4 + size :]
        self._cache: dict[bytes, str] = {}

    def replace(self, text: str) -> str:
        """``text`` with the longest entries replaced, from left to right."""
        if not self._nodes:
            return text
        data = text.encode("utf-8", "replace")
        result: list[bytes] = []
        position = 0
        while position < len(data):
            length, found = self._longest(data, position)
            if not length:
                length = _length_of(data[position])
                found = data[position : position + length]
            result.append(found)
            position += length
        return b"".join(result).decode("utf-8", "replace")

    def _longest(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Length of the longest entry at ``start`` and its replacement; (0, b"") where none begins."""
        length, text = 0, b""
        node = self._base(0)
        for position in range(start, len(data)):
            byte = data[position]
            node ^= byte
            if byte == 0 or self._node(node) & 0x800000FF != byte:
                break
            leaf = self._node(node) >> 8 & 1
            node ^= self._base(node)
            if leaf:
                length, text = position - start + 1, self._text(self._node(node) & 0x7FFFFFFF)
        return length, text

    def _node(self, index: int) -> int:
        if index >= len(self._nodes):
            raise BadTokenizer("an entry leads outside", where="tokenizer.ggml.precompiled_charsmap")
        return self._nodes[index]

    def _base(self, index: int) -> int:
        node = self._node(index)
        return node >> 10 << ((node & 0x200) >> 6)

    def _text(self, offset: int) -> bytes:
        end = self._texts.find(b"\0", offset)
        if end < 0:
            raise BadTokenizer("a replacement does not end", where="tokenizer.ggml.precompiled_charsmap")
        return self._texts[offset:end]


def _length_of(first: int) -> int:
    """Bytes of the character that begins with this byte of UTF-8."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


class Plamo:
    """PLaMo 2's model: whole-number scores, computed from the end; a character without a piece becomes its bytes."""

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], types: Sequence[int]) -> None:
        self._bytes = [ids.get(f"<0x{byte:02X}>") for byte in range(256)]
        self._pieces = _Pieces(
            {
                text: (index, _rounded(scores[index] * _PLAMO_SCALE))
                for text, index in ids.items()
                if types[index] != TokenType.BYTE and text
            }
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; a byte order mark in front is passed over."""
        text = text.removeprefix("\ufeff")
        best: list[float] = [math.inf] * len(text) + [0]
        taken: list[tuple[int, int | None]] = [(1, None)] * len(text)
        for start in range(len(text) - 1, -1, -1):
            found = [*reversed(list(self._pieces.at(text, start))), (1, None, _PLAMO_UNKNOWN)]
            for length, token, score in found:
                if best[start + length] - score < best[start]:
                    best[start], taken[start] = best[start + length] - score, (length, token)
        return self._collect(text, taken)

    def _collect(self, text: str, taken: Sequence[tuple[int, int | None]]) -> list[int]:
        result: list[int] = []
        position = 0
        while position < len(text):
            length, token = taken[position]
            if token is not None:
                result.append(token)
            else:
                data = text[position].encode("utf-8", "replace")
                result += [byte for byte in (self._bytes[value] for value in data) if byte is not None]
            position += length
        return result


def _rounded(value: float) -> int:
    """To the nearest whole number, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
