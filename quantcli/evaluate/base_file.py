"""llama.cpp's file of base logits (``llama-perplexity --kl-divergence-base``) as a reference.

Layout: "_logits_", i32 context, vocabulary, chunks; i32 tokens; per scored position f32 scale, f32 lowest
log-probability, then u16 codes of the whole vocabulary (one pad slot where it is odd).
"""

from __future__ import annotations

import os
import struct

import numpy

from quantcli.errors import BadReference
from quantcli.evaluate.reference import CLAMPED, Full
from quantcli.evaluate.scoring import Block
from quantcli.report.measurements import RecordedReference
from quantcli.runner.text import Chunks
from quantcli.sources.files import SourceFile

MAGIC = b"_logits_"
MOST = 1 << 24  # of a context or vocabulary


def is_base_file(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins like one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class BaseFile:
    """Predictions are decoded from the file a block at a time. ``bos`` is what the models read at a chunk's start."""

    def __init__(self, path: str | os.PathLike[str], bos: int | None, limit: int | None = None) -> None:
        """Raises BadReference, MissingFile."""
        self.file = SourceFile(path)
        length, self.vocabulary, count = self._header()
        self.width = 2 * ((self.vocabulary + 1) // 2) + 4  # u16 of one position
        tokens = numpy.frombuffer(self.file.read(20, 4 * length * count), "<i4").reshape(count, length)
        if tokens.min() < 0 or tokens.max() >= self.vocabulary:
            raise BadReference(f"token {tokens.max()} of {self.vocabulary}", where=str(path))
        self.data = 20 + 4 * length * count
        self.chunks = Chunks(self.file.name, tokens[:limit].astype(numpy.int32), bos)

    def _header(self) -> tuple[int, int, int]:
        where, hint = str(self.file.path), "write it again with llama-perplexity --kl-divergence-base"
        if self.file.size < 20 or self.file.read(0, 8) != MAGIC:
            raise BadReference("not a file of base logits", where=where)
        length, vocabulary, count = struct.unpack("<3i", self.file.read(8, 12))
        if not (4 <= length <= MOST and 0 < vocabulary <= MOST and 0 < count <= MOST):
            raise BadReference(f"{count} chunks of {length} tokens out of {vocabulary}", where=where, hint=hint)
        scored = length - 1 - length // 2
        expected = 20 + count * (4 * length + 2 * scored * (2 * ((vocabulary + 1) // 2) + 4))
        if self.file.size < expected:
            raise BadReference(f"{self.file.size} bytes, its header says {expected}", where=where, hint=hint)
        return length, vocabulary, count

    def begin(self, start: int, stop: int) -> None:
        """Nothing to prepare."""

    def block(self, block: Block) -> Full:
        first = block.chunk * self.chunks.scored + block.start - self.chunks.first_scored
        count = block.stop - block.start
        raw = self.file.read(self.data + 2 * self.width * first, 2 * self.width * count)
        rows = numpy.frombuffer(raw, "<u2").reshape(count, self.width)
        scale, lowest = numpy.ascontiguousarray(rows[:, :4]).view("<f4").T[..., None]
        log_probs = rows[:, 4 : 4 + self.vocabulary].astype(numpy.float32)
        log_probs *= scale
        log_probs += lowest
        return Full(log_probs, CLAMPED)

    def describe(self) -> RecordedReference:
        return {"name": self.file.name, "kind": "base logits of llama.cpp", "bytes": self.file.size}

    def close(self) -> None:
        self.file.close()
