"""Front matter of model cards: the values that yaml.safe_load gives, whatever the spelling; broken cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantcli.errors import MalformedFile
from quantcli.sources.card import LARGEST, front_matter, texts
from quantcli.sources.checkpoint import Checkpoint

CARD = """license: apache-2.0  # a remark
base_model:
- org/one
- 'org/two'
tags: [a, "b # no remark", 'c: d']
# remark
nested:
  x: 1
  y: [~, null, "null"]
description: >-
  two lines,
  folded
literal: |
  kept
  apart
nothing:
empty: ""
alias: &name [x, y]
again: *name
model-index:
- name: y
  results: []
"""


def page(content: str) -> str:
    return f"---\n{content}---\n# text: no\n"


def as_texts(value: Any) -> Any:
    """What safe_load gives, with every scalar that is no text and no null as its text."""
    if isinstance(value, dict):
        return {str(key): as_texts(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_texts(entry) for entry in value]
    return value if value is None or isinstance(value, str) else str(value)


def test_as_safe_load_reads_it() -> None:
    assert front_matter(page(CARD)) == as_texts(yaml.safe_load(CARD))
    assert front_matter(page(CARD).replace("\n", "\r\n")) == as_texts(yaml.safe_load(CARD))
    assert front_matter("\ufeff" + page(CARD)) == as_texts(yaml.safe_load(CARD))


SCALARS = st.one_of(
    st.text(max_size=30), st.none(), st.integers(0, 99), st.dates(), st.sampled_from(["# a", "a: b", "- c"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab_", min_size=1), inner)
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text("abcdef_", min_size=1, max_size=8), VALUES, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, "'", '"', "|", ">"]),
)
def test_any_values_in_any_style(fields: dict[str, Any], flow: bool, style: str | None) -> None:
    content = yaml.safe_dump(fields, default_flow_style=flow, default_style=style, allow_unicode=False)
    if "\n---" not in content and "\t" not in content:
        assert front_matter(page(content)) == as_texts(yaml.safe_load(content))


@pytest.mark.parametrize(
    "scalar", ["2024-05-01", "2024-13-45", "1.10", "no", "On", "0x10", "1_000", "2024-05-01 10:00:00Z", "=", "<<"]
)
def test_what_only_looks_like_something_else_stays_text(scalar: str) -> None:
    assert front_matter(page(f"a: {scalar}\nb:\n- {scalar}\n")) == {"a": scalar, "b": [scalar]}


@pytest.mark.parametrize(
    "text", ["", "no card", "# title\n---\na: b\n---\n", "---\na: b\n", "---\n---\n", "---\n# nothing\n---\n"]
)
def test_no_front_matter(text: str) -> None:
    assert front_matter(text) == {}


BROKEN = {
    "not closed": "a: [b, c\n",
    "two values": "a: b: c\n",
    "quote": "a: 'b\n",
    "a list": "- a\n- b\n",
    "a text": "just words\n",
    "unknown alias": "a: *b\n",
    "control character": "a: \x01\n",
    "tab as indentation of a flow": "a:\n- b\n c: [\n",
    "deep flow": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep block": "a:\n" + "".join(" " * depth + "-\n" for depth in range(1, 300)),
    "compact": "- " * 3000 + "a\n",
    "huge": "a: " + "b" * LARGEST + "\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_front_matter_is_a_note(tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedFile):
        front_matter(page(BROKEN[name]))
    (tmp_path / "README.md").write_text(page(BROKEN[name]))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.card == {}
    assert len(checkpoint.notes) == 1 and "README.md is not used" in checkpoint.notes[0]


def test_the_line_of_an_error() -> None:
    with pytest.raises(MalformedFile, match="line 3"):
        front_matter("---\na: b\nc: d: e\n---\n")


def test_aliases_do_not_multiply() -> None:
    """Nine lists of ten aliases to the one before: a billion texts, if they were copied."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    found = front_matter(page("\n".join(lines) + "\n"))
    assert len(found["a9"]) == 10 and list(texts(found["a9"])) == []


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}'\"#&*!|> \n\t?,%@`\x00\u2028"), max_size=60))
def test_any_text_is_a_card_or_an_error(content: str) -> None:
    try:
        front_matter(page(content))
    except MalformedFile as error:
        assert error.message
