"""SentencePiece's BPE over a vocabulary with scores, as llama.cpp runs it for ``tokenizer.ggml.model`` = llama.

Start from single characters; join the neighbours whose concatenation is the token with the highest score, leftmost
first on ties, until nothing can be joined. What is no token then becomes byte tokens.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence

_MOST_CACHED = 200_000
_LONGEST_CACHED = 64


class Merger:
    """Splits text into tokens. ``ids`` maps text to id, ``scores`` are by id, ``byte_ids`` by byte (256)."""

    def __init__(self, ids: Mapping[str, int], scores: Sequence[float], byte_ids: Sequence[int | None]) -> None:
        self._ids = ids
        self._scores = scores
        self._byte_ids = byte_ids
        self._cache: dict[str, list[int]] = {}
        # Two neighbouring characters that no token holds are never joined: text can be cut between them.
        self._pairs = {text[i : i + 2] for text in ids for i in range(len(text) - 1)}

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, in which blanks are U+2581 already."""
        pairs = self._pairs
        cuts = [0, *(i for i in range(1, len(text)) if text[i - 1 : i + 1] not in pairs), len(text)]
        result: list[int] = []
        for start, stop in itertools.pairwise(cuts):
            result += self._segment(text[start:stop])
        return result

    def _segment(self, text: str) -> list[int]:
        """Token ids of a piece that has to be looked at as a whole."""
        found = self._cache.get(text)
        if found is None:
            found = [token for symbol in self._merge(text) for token in self._tokens_of(symbol)]
            if len(text) <= _LONGEST_CACHED and len(self._cache) < _MOST_CACHED:
                self._cache[text] = found
        return found

    def _merge(self, text: str) -> list[str]:
        """The symbols that are left when no neighbours can be joined any more."""
        symbols = list(text)
        before = list(range(-1, len(symbols) - 1))
        after = [*range(1, len(symbols)), -1]
        queue: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joined = symbols[left] + symbols[right]
                token = self._ids.get(joined)
                if token is not None:
                    heapq.heappush(queue, (-self._scores[token], left, right, len(joined)))

        for index in range(len(symbols) - 1):
            offer(index, index + 1)
        while queue:
            _, left, right, size = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != size:
                continue  # one of the two has been joined with something else since
            symbols[left] += symbols[right]
            symbols[right] = ""
            after[left] = after[right]
            if after[right] >= 0:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [symbol for symbol in symbols if symbol]

    def _tokens_of(self, symbol: str) -> list[int]:
        """The symbol's token, or those of its UTF-8 bytes; a byte without a token is dropped."""
        token = self._ids.get(symbol)
        if token is not None:
            return [token]
        data = symbol.encode("utf-8", "replace")
        return [token for token in (self._byte_ids[byte] for byte in data) if token is not None]
