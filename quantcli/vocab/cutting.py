"""A raw text cut at special tokens, as llama.cpp cuts it: the longest token first, each from left to right.

Looking for every token in every piece takes (tokens x pieces) steps: minutes for a vocabulary with 20,000 user-defined
tokens. Here one walk finds where tokens could stand; they then take their places in that same order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

_BLANKS = " \t\n\r\v\f"
_FREE, _TAKEN = 0, 1
_LEFT_ALONE = ("<unk>", "<s>", "<|endoftext|>")  # white space behind these stays, whatever the vocabulary strips


class Cutter:
    """Finds ``searched``: (id, text), the longest first; among equals the first in the list goes first.

    ``strips_right``: white space behind a token belongs to it, but for a few; ``strips_left`` is the one token that
    takes the white space in front of it, too.
    """

    def __init__(self, searched: Sequence[tuple[int, str]], *, strips_right: bool, strips_left: str | None) -> None:
        self._searched = [(token, content) for token, content in searched if content]
        self._strips_right, self._strips_left = strips_right, strips_left
        self._orders = {content: order for order, (_, content) in enumerate(self._searched)}
        lengths: dict[str, set[int]] = {}
        for content in self._orders:
            lengths.setdefault(content[0], set()).add(len(content))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}

    def cut(self, text: str, wanted: Callable[[int], bool]) -> list[str | int]:
        """Pieces of ``text`` and the ids of the tokens ``wanted`` between them, in their order."""
        candidates = self._candidates(text, wanted)
        if not candidates:
            return [text] if text else []
        state = bytearray(len(text))
        placed: dict[int, tuple[int, int]] = {}  # start -> (stop, token)
        for order in sorted(candidates):
            token, content = self._searched[order]
            starts = []
            for start in candidates[order]:
                stop = start + len(content)
                if state.find(_TAKEN, start, stop) < 0:
                    state[start:stop] = bytes([_TAKEN]) * len(content)
                    placed[start] = (stop, token)
                    starts.append(start)
            if starts:
                self._strip(text, state, content, starts)
        return list(_pieces(text, state, placed))

    def _candidates(self, text: str, wanted: Callable[[int], bool]) -> dict[int, list[int]]:
        """Where each token stands in the text, by its place in the order; places ascend, and may overlap."""
        found: dict[int, list[int]] = {}
        lengths, orders = self._lengths, self._orders
        for start in _starts(text, lengths):
            for length in lengths[text[start]]:
                order = orders.get(text[start : start + length])
                if order is not None and wanted(self._searched[order][0]) and start + length <= len(text):
                    found.setdefault(order, []).append(start)
        return found

    def _strip(self, text: str, state: bytearray, content: str, starts: Sequence[int]) -> None:
        """Take the white space beside the places of one token."""
        if self._strips_right and content not in _LEFT_ALONE:
            for start in starts:
                place = start + len(content)
                while place < len(text) and state[place] == _FREE and text[place] in _BLANKS:
                    state[place] = _TAKEN
                    place += 1
        if content == self._strips_left:
            for start in starts:
                place = start - 1
                while place >= 0 and state[place] == _FREE and text[place] in _BLANKS:
                    state[place] = _TAKEN
                    place -= 1


def _starts(text: str, firsts: Container[str]) -> Iterator[int]:
    """Places with a character that some token begins with."""
    here = set(text)
    if not any(character in firsts for character in here):
        return iter(())
    return (place for place, character in enumerate(text) if character in firsts)


def _pieces(text: str, state: bytearray, placed: dict[int, tuple[int, int]]) -> Iterator[str | int]:
    """Runs of free characters, and tokens, from left to right."""
    place = 0
    while place < len(text):
        if place in placed:
            place, token = placed[place]
            yield token
            continue
        stop = state.find(_TAKEN, place)
        stop = len(text) if stop < 0 else stop
        if stop > place:
            yield text[place:stop]
            place = stop
        else:
            place += 1  # stripped
