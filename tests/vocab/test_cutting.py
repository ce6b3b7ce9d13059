"""Texts cut at special tokens: the places are those of the slow rule, for any tokens, at once."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from quantcli.vocab.cutting import Cutter


def one_after_another(
    text: str, searched: list[tuple[int, str]], strips_right: bool, strips_left: str | None
) -> list[str | int]:
    """The rule as llama.cpp states it: every token in its order is cut out of what the ones before it left."""
    parts: list[str | int] = [text] if text else []
    for token, content in searched:
        made: list[str | int] = []
        for part in parts:
            if isinstance(part, int):
                made.append(part)
                continue
            pieces = part.split(content)
            for index, piece in enumerate(pieces):
                if index:
                    made.append(token)
                    piece = piece.lstrip(" \n") if strips_right and content != "<s>" else piece
                if content == strips_left and index + 1 < len(pieces):
                    piece = piece.rstrip(" \n")
                made += [piece] if piece else []
        parts = made
    return parts


CONTENTS = st.lists(st.one_of(st.text("ab \n", min_size=1, max_size=4), st.just("<s>")), max_size=7, unique=True)


@given(st.text("ab<s> \n", max_size=40), CONTENTS, st.booleans(), st.booleans())
def test_any_tokens_take_the_same_places(text: str, contents: list[str], right: bool, left: bool) -> None:
    searched = [(number, content) for number, content in enumerate(sorted(contents, key=len, reverse=True))]
    mask = contents[0] if left and contents else None
    found = Cutter(searched, strips_right=right, strips_left=mask).cut(text, lambda _: True)
    assert found == one_after_another(text, searched, right, mask)


def test_tokens_that_are_not_wanted_are_text() -> None:
    cutter = Cutter([(7, "<x>"), (8, "<y>")], strips_right=False, strips_left=None)
    assert cutter.cut("a<x>b<y>", lambda token: token == 8) == ["a<x>b", 8]
    assert cutter.cut("", lambda _: True) == []


def test_twenty_thousand_tokens_in_a_long_text() -> None:
    """One by one this takes more than a minute: 20,000 searches in up to 30,000 pieces."""
    words = [f"w{number:05d}" for number in range(20_000)]
    text = " ".join(words)[:195_000]
    cutter = Cutter(list(enumerate(words)), strips_right=False, strips_left=None)
    began = time.process_time()
    found = cutter.cut(text, lambda _: True)
    assert time.process_time() - began < 5
    assert [part for part in found if isinstance(part, int)][:3] == [0, 1, 2]
    assert "".join(words[part] if isinstance(part, int) else part for part in found) == text
