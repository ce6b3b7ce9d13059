"""A vocabulary on its way to GGUF metadata: tokens by id, filled from several files, then made complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from quantcli.errors import BadTokenizer

MAX_TOKENS = 1 << 21  # eight times the largest vocabulary in use: a larger claim is an error, not an allocation
_MAX_TOKEN_BYTES = 1 << 16
ADDED_SCORE = -1000.0  # what llama.cpp's converter gives to every added token
UNUSED_SCORE = -10000.0


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(slots=True)
class Table:
    """Tokens by id. ``size`` is the number of embedding rows, or None: as many as the files name.

    Ids at or beyond ``size`` are left out and counted in ``beyond``; ids without a token become unused ``[PAD<id>]``.
    """

    size: int | None
    where: str
    tokens: dict[int, tuple[str, float, TokenType]] = field(default_factory=dict)
    beyond: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size is not None and not 0 < self.size <= MAX_TOKENS:
            raise BadTokenizer(
                f"a vocabulary of {self.size:,} tokens is outside 1 to {MAX_TOKENS:,}",
                where=self.where,
                hint="check vocab_size in config.json",
            )

    def put(self, index: int, text: str, score: float, kind: TokenType) -> None:
        """Set token ``index``, replacing what an earlier file said."""
        limit = MAX_TOKENS if self.size is None else self.size
        if index < 0:
            raise BadTokenizer(f"token {text[:60]!r} has the negative id {index}", where=self.where)
        if index >= limit:
            self.beyond.append(text)
        else:
            self.tokens[index] = (text, score, kind)

    def put_all(self, ids: Mapping[str, int], score: float, kind: TokenType) -> None:
        """`put` many tokens of one score and kind."""
        limit = MAX_TOKENS if self.size is None else self.size
        if ids and min(ids.values()) >= 0 and max(ids.values()) < limit:
            self.tokens.update({index: (text, score, kind) for text, index in ids.items()})
            return
        for text, index in ids.items():
            self.put(index, text, score, kind)

    def complete(self) -> tuple[list[str], list[float], list[int]]:
        """Texts, scores and types of all ids, padded; llama.cpp's own conditions checked."""
        size = self.size if self.size is not None else max(self.tokens, default=-1) + 1
        if not self.tokens:
            raise BadTokenizer("the vocabulary is empty", where=self.where)
        known = map(self.tokens.get, range(size))
        tokens = [one or (f"[PAD{index}]", UNUSED_SCORE, TokenType.UNUSED) for index, one in enumerate(known)]
        texts = [text for text, _, _ in tokens]
        _check_texts(texts, self.where)
        return texts, [score for _, score, _ in tokens], [int(kind) for _, _, kind in tokens]

    def notes(self) -> list[str]:
        """What the user should know about tokens that were left out."""
        if not self.beyond:
            return []
        shown = ", ".join(repr(text[:40]) for text in self.beyond[:3]) + (", ..." if len(self.beyond) > 3 else "")
        return [f"{self.where}: left out {len(self.beyond)} tokens whose id has no embedding row: {shown}"]


def _check_texts(texts: list[str], where: str) -> None:
    """llama.cpp aborts on two tokens with one text; GGUF strings are UTF-8."""
    if len(set(texts)) != len(texts):
        first: dict[str, int] = {}
        for index, text in enumerate(texts):
            if text in first:
                raise BadTokenizer(
                    f"tokens {first[text]} and {index} are both {text[:60]!r}",
                    where=where,
                    hint="llama.cpp cannot load a vocabulary with two equal tokens; rename one in the tokenizer files",
                )
            first[text] = index
    if max(map(len, texts), default=0) <= _MAX_TOKEN_BYTES and is_unicode("".join(texts)):
        return
    for index, text in enumerate(texts):
        if len(text) > _MAX_TOKEN_BYTES:
            raise BadTokenizer(f"token {index} is {len(text):,} characters long", where=where)
        if not text.isascii():
            check_unicode(text, f"token {index}", where)


def is_unicode(text: str) -> bool:
    """JSON can spell half a surrogate pair, which is no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_unicode(text: str, what: str, where: str) -> None:
    """Raises BadTokenizer for a text that `is_unicode` refuses."""
    if not is_unicode(text):
        raise BadTokenizer(f"{what} holds half a surrogate pair and is no valid Unicode", where=where)


def _looks_special(text: str) -> bool:
    """llama.cpp's converter takes such added tokens for control tokens even when they are not marked special."""
    return (
        text in {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def added_kind(text: str, special: bool) -> tuple[str, TokenType]:
    """Text and type of an added token: a user-defined one is stored as plain text, with blanks for U+2581."""
    if special or _looks_special(text):
        return text, TokenType.CONTROL
    return text.replace("\u2581", " "), TokenType.USER_DEFINED


def is_byte(text: str) -> bool:
    """``<0x00>`` to ``<0xFF>``, upper-case digits."""
    return len(text) == 6 and text.startswith("<0x") and text[5] == ">" and set(text[3:5]) <= set("0123456789ABCDEF")


def first_duplicate(values: Iterable[int]) -> int | None:
    """The first value that occurs twice."""
    seen: set[int] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
