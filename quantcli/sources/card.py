"""The front matter of a model card (README.md): YAML between two lines of three dashes.

Scalars stay the texts that they are (a date, a version 1.10 and the language `no` are texts here), nulls are None.
Built from the parser's events, so that depth, size and aliases are bounded before there is anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from quantcli.errors import MalformedFile

LARGEST = 1 << 20  # characters of front matter: cards with many results have 300,000
_DEEPEST = 50
_NULL_TAG = "tag:yaml.org,2002:null"
_NULLS = ("", "~", "null", "Null", "NULL")

Yaml: TypeAlias = "str | list[Yaml] | dict[str, Yaml] | None"


def front_matter(text: str) -> dict[str, Yaml]:
    """The fields at the top level; {} where there is no front matter. Raises MalformedFile naming the line."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    end = next((number for number, line in enumerate(lines) if number and line.rstrip() == "---"), None)
    if end is None:
        return {}  # it never ended: no front matter, but a line across the page
    content = "\n".join(lines[1:end]).replace("\t", "  ") + "\n"  # tabs are no YAML, but published cards have them
    if len(content) > LARGEST:
        raise MalformedFile(f"{len(content):,} characters of front matter: {LARGEST:,} are read")
    found = _parse(content)
    if found is not None and not isinstance(found, dict):
        raise MalformedFile("the front matter holds no fields")
    return found or {}


def _parse(content: str) -> Yaml:
    """The value of a YAML text. Raises MalformedFile."""
    import yaml  # takes a while, and most folders have no card

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(content, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 2}: " if error.problem_mark else ""
        raise MalformedFile(f"{line}the front matter is no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise MalformedFile(f"the front matter is no YAML: {str(error)[:200]}") from error
    return builder.result


@dataclass(eq=False, repr=False)
class _Open:
    """A list or an object that is not complete yet; ``key`` is the object's key that waits for its value."""

    value: list[Yaml] | dict[str, Yaml]
    key: str | None = None
    waits: bool = False


@dataclass(eq=False, repr=False)
class _Builder:
    """Values from events, without recursion."""

    result: Yaml = None
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, Yaml] = field(default_factory=dict)

    def take(self, event: object) -> None:
        """The next event of the parser. Raises MalformedFile where it goes too deep."""
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind == "ScalarEvent":
            text, tag = str(getattr(event, "value", "")), getattr(event, "tag", None)
            plain = getattr(event, "style", None) in (None, "") and tag is None
            self._put(None if (plain and text in _NULLS) or tag == _NULL_TAG else text, anchor)
        elif kind == "AliasEvent":
            if anchor not in self.anchors:
                raise MalformedFile(f"the front matter names the unknown alias {str(anchor)[:40]!r}")
            self._put(self.anchors[str(anchor)], None)
        elif kind in ("SequenceStartEvent", "MappingStartEvent"):
            if len(self.stack) >= _DEEPEST:
                raise MalformedFile(f"the front matter is nested more than {_DEEPEST} levels deep")
            value: list[Yaml] | dict[str, Yaml] = [] if kind == "SequenceStartEvent" else {}
            self._put(value, anchor)
            self.stack.append(_Open(value))
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            self.stack.pop()

    def _put(self, value: Yaml, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = value
        if not self.stack:
            self.result = value
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.waits:
            top.waits = False
            if top.key is not None:
                top.value[top.key] = value
        else:  # a key; one that is no text is passed over with its value
            top.key, top.waits = value if isinstance(value, str) else None, True


def texts(value: object) -> Iterator[str]:
    """The texts in a field that holds one, or a list of them; what is empty or no text is passed over."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip()
