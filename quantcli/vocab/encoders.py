"""How the kinds of vocabulary turn text into ids, and what holds for each where a GGUF file says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from quantcli.container import Value
from quantcli.errors import BadTokenizer
from quantcli.vocab import bpe, longest, viterbi
from quantcli.vocab.merging import Merger

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What an encoder is made of: tokens by id, the special ones that it needs, and the file's other entries."""

    metadata: Mapping[str, Value]
    texts: Sequence[str]
    ids: Mapping[str, int]
    types: NDArray[numpy.number]
    pre: str
    unknown: int | None
    prefix: bool  # a blank goes in front of a text

    def flag(self, name: str, default: bool) -> bool:
        """``tokenizer.ggml.<name>``, or what holds without it."""
        return flag(self.metadata, name, default)

    def scores(self) -> list[float]:
        """One finite number a token; 0 everywhere where the file has none."""
        found = numbers(self.metadata, "scores", len(self.texts), 0.0)
        if not numpy.isfinite(found).all():
            raise BadTokenizer("a score is not finite", where="tokenizer.ggml.scores")
        return [float(score) for score in found]


@dataclass(frozen=True, slots=True)
class Kind:
    """One ``tokenizer.ggml.model``: ``ids`` hold where the file names none; ``end`` is what stands behind a text.

    ``add_bos`` and ``add_end`` are defaults; ``fixed`` means that the file has no say in them. ``escaped``: texts of
    tokens have U+2581 for blanks.
    """

    build: Callable[[Vocabulary], Encode]
    ids: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_end: bool = False
    end: str = "eos"
    fixed: bool = False
    prefix: bool | None = None  # default of add_space_prefix; None: no blank whatever the file says
    escaped: bool = True


def _by_score(vocabulary: Vocabulary) -> Encode:
    """Merges by score (SentencePiece's BPE), then bytes."""
    ids, unknown = vocabulary.ids, vocabulary.unknown
    plain = [ids.get(chr(byte), unknown) if byte < 128 else unknown for byte in range(256)]
    byte_ids = [ids.get(f"<0x{byte:02X}>", plain[byte]) for byte in range(256)]
    return Merger(ids, vocabulary.scores(), byte_ids).encode


def _by_rank(vocabulary: Vocabulary) -> Encode:
    """Merges by rank over bytes."""
    return bpe.runner(vocabulary.ids, _merges(vocabulary.metadata), vocabulary.pre)


def _by_rank_in_text(vocabulary: Vocabulary) -> Encode:
    """Merges by rank over plain text."""
    return bpe.runner(vocabulary.ids, _merges(vocabulary.metadata), "gemma4")


def _merges(metadata: Mapping[str, Value]) -> Sequence[str]:
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is None or isinstance(merges.data, (str, int, float, numpy.ndarray)):
        raise BadTokenizer("there is no list of merges", where="tokenizer.ggml.merges")
    found: Sequence[str] = merges.data
    return found


def _unigram(vocabulary: Vocabulary) -> Encode:
    """The best sum of scores."""
    charsmap = vocabulary.metadata.get("tokenizer.ggml.precompiled_charsmap")
    data = charsmap.data if charsmap is not None else None
    return viterbi.Unigram(
        vocabulary.texts,
        vocabulary.scores(),
        [int(kind) for kind in vocabulary.types],
        vocabulary.unknown,
        charsmap=data.astype(numpy.uint8).tobytes() if isinstance(data, numpy.ndarray) else b"",
        prefix=vocabulary.prefix,
        merge_blanks=vocabulary.flag("remove_extra_whitespaces", False),
    ).encode


def _word_pieces(vocabulary: Vocabulary) -> Encode:
    """The longest pieces of words."""
    lowercase = vocabulary.flag("normalizer.lowercase", True)
    strip = vocabulary.flag("normalizer.strip_accents", lowercase)
    return longest.WordPiece(vocabulary.ids, vocabulary.unknown, lowercase=lowercase, strip_accents=strip).encode


def _words(vocabulary: Vocabulary) -> Encode:
    """The longest tokens of bytes."""
    return longest.Words(vocabulary.texts, vocabulary.unknown).encode


def _plamo(vocabulary: Vocabulary) -> Encode:
    """The best sum of scores, from the end."""
    return viterbi.Plamo(vocabulary.ids, vocabulary.scores(), [int(kind) for kind in vocabulary.types]).encode


KINDS: Mapping[str, Kind] = {
    "llama": Kind(_by_score, {"bos": 1, "eos": 2, "unknown": 0}, add_bos=True, prefix=True),
    "gpt2": Kind(_by_rank, {"bos": 11, "eos": 11}, escaped=False),
    "gemma4": Kind(_by_rank_in_text, add_bos=True),
    "t5": Kind(_unigram, {"eos": 1, "unknown": 2, "padding": 0}, add_end=True, prefix=False),
    "bert": Kind(
        _word_pieces, {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
        add_bos=True, add_end=True, end="seperator", fixed=True,
    ),
    "rwkv": Kind(_words, fixed=True, escaped=False),
    "plamo2": Kind(_plamo, {"bos": 1, "eos": 2, "unknown": 0, "padding": 3}, fixed=True, escaped=False),
}  # fmt: skip


def flag(metadata: Mapping[str, Value], name: str, default: bool) -> bool:
    """``tokenizer.ggml.<name>``, or ``default``."""
    value = metadata.get(f"tokenizer.ggml.{name}")
    return value.data if value is not None and isinstance(value.data, bool) else default


def numbers(metadata: Mapping[str, Value], name: str, size: int, default: float) -> NDArray[numpy.number]:
    """A numeric array with one element for every token; ``default`` everywhere where the file has none."""
    value = metadata.get(f"tokenizer.ggml.{name}")
    if value is None:
        return numpy.full(size, default)
    if not isinstance(value.data, numpy.ndarray) or len(value.data) != size:
        raise BadTokenizer(f"there must be one number for each of the {size:,} tokens", where=f"tokenizer.ggml.{name}")
    return value.data.copy()
