"""A text as chunks of token ids, cut as llama.cpp's tools cut it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy

from quantcli.errors import MissingFile, ShortText, UsageError
from quantcli.places import check_regular
from quantcli.runner import memory
from quantcli.runner.arrays import Ids
from quantcli.vocab.tokenizer import Tokenizer

BATCH = 2048  # tokens that run together: that many chunks side by side
BUNDLED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "calibration.txt")


@dataclass(frozen=True)
class Chunks:
    """``tokens``: int32 [chunks, length], the text's own; ``inputs``: the same with bos first where the model wants it.

    Targets are always the text's own tokens. ``name`` is the text's.
    """

    name: str
    tokens: Ids
    bos: int | None

    @property
    def length(self) -> int:
        """Tokens of a chunk."""
        _, length = self.tokens.shape
        return int(length)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def first_scored(self) -> int:
        """Positions from here on predict with enough context: the second half."""
        return self.length // 2

    @property
    def scored(self) -> int:
        """Predictions per chunk: the last position has no target in its chunk."""
        return self.length - 1 - self.first_scored

    def inputs(self, start: int, stop: int) -> Ids:
        """What the model reads of chunks ``start`` to ``stop``."""
        part = self.tokens[start:stop].copy()
        if self.bos is not None:
            part[:, 0] = self.bos
        return part

    @property
    def together(self) -> int:
        """How many chunks run together, the last ones excepted."""
        return max(1, BATCH // self.length)

    def batches(self) -> list[tuple[int, int]]:
        """(start, stop) of the chunks that run together."""
        return [(i, min(i + self.together, len(self))) for i in range(0, len(self), self.together)]

    def sha256(self, count: int) -> str:
        """Of what the model reads of the first ``count`` chunks."""
        return hashlib.sha256(numpy.ascontiguousarray(self.inputs(0, count), "<i4").tobytes()).hexdigest()


def read_text(path: str | os.PathLike[str]) -> str:
    """The file's text without one trailing newline. Bytes that are no UTF-8 become U+FFFD."""
    check_regular(Path(path))
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be read", where=os.fspath(path)) from error
    text = data.removesuffix(b"\n").decode("utf-8", "replace")
    if not text.strip():
        raise ShortText("the text is empty", where=os.fspath(path), hint="give a text file with -f")
    return text


def tokenize(tokenizer: Tokenizer, text: str, *, parse_special: bool = False) -> Ids:
    """Ids of a whole text, int32, with bos in front where the vocabulary says so and never an eos."""
    ids = tokenizer.encode(text, add_special=False, parse_special=parse_special)
    if tokenizer.add_bos and tokenizer.bos is not None:
        ids.insert(0, tokenizer.bos)
    return numpy.array(ids, numpy.int32)


def cut(name: str, ids: Ids, length: int, bos: int | None, *, chunks: int | None = None, first: int = 0) -> Chunks:
    """Consecutive chunks of ``length`` tokens, at most ``chunks`` of them, after skipping ``first``.

    The rest behind the last full chunk is unused. Raises ShortText for less than two chunks, UsageError.
    """
    if length < 4:
        raise UsageError(f"a context of {length} tokens has nothing to predict from", where="-c", hint="use 512")
    if len(ids) < 2 * length:
        raise ShortText(
            f"{len(ids)} tokens, at least {2 * length} are needed",
            where=name,
            hint=f"give a longer text, or a smaller context: -c {max(4, len(ids) // 4 * 2)}",
        )
    total = len(ids) // length
    if first >= total:
        raise ShortText(f"the text has {total} chunks of {length} tokens, {first} are to be skipped", where=name)
    count = total - first if chunks is None else min(chunks, total - first)
    return Chunks(name, ids[first * length : (first + count) * length].reshape(count, length), bos)


def chunks_of(
    tokenizer: Tokenizer,
    path: str | os.PathLike[str],
    length: int,
    *,
    chunks: int | None = None,
    parse_special: bool = False,
    first: int = 0,
    characters: int | None = None,
) -> Chunks:
    """Read, tokenize and cut the text at ``path``, or its beginning of that many ``characters``."""
    ids = tokenize(tokenizer, read_text(path)[:characters], parse_special=parse_special)
    memory.give_back()
    return cut(os.fspath(path), ids, length, tokenizer.bos if tokenizer.add_bos else None, chunks=chunks, first=first)
