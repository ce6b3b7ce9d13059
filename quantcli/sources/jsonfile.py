"""JSON from files of unknown origin: bounded in size and depth, with the place of an error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy

from quantcli.container import foreign
from quantcli.errors import MalformedFile
from quantcli.sources.files import read_small, shown

SMALL_JSON = 16 << 20  # config.json and its like; an index of 100,000 tensors takes 8 MB
LARGE_JSON = 256 << 20  # tokenizer.json and vocab.json: 35 MB are known
DEEPEST = 100  # real files stay below 15

_STRUCTURE = b'"[]{}'
_OTHERS = bytes(set(range(256)) - set(_STRUCTURE))


def load(path: Path, *, limit: int = SMALL_JSON) -> object:
    """The parsed content of the file at ``path``. Raises MissingFile, MalformedFile (with line and column)."""
    return parse(read_small(path, limit), str(path))


def parse(raw: bytes, where: str, *, unique_keys: bool = False) -> object:
    """Parse JSON in UTF-8 (a byte order mark is skipped). Of a repeated key the last one counts, as everywhere,

    unless ``unique_keys`` makes it an error. NaN and Infinity are taken, as Python writes them; whoever uses a number
    checks it. Raises MalformedFile.
    """
    if foreign.is_page(raw[: foreign.BEGINNING]):
        raise MalformedFile("a web page, not JSON", where=where, hint="get the file itself: the download went wrong")
    deep = _depth(raw)
    if deep > DEEPEST:
        raise MalformedFile(f"nested {deep} levels deep, {DEEPEST} are allowed", where=where)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedFile("not UTF-8", where=f"{where}: byte {error.start}") from error
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except json.JSONDecodeError as error:
        raise MalformedFile(
            f"not valid JSON: {error.msg}", where=f"{where}: line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise MalformedFile("nested too deeply", where=where) from error
    except MalformedFile as error:
        raise MalformedFile(error.message, where=where) from error
    except ValueError as error:  # an integer of more than 4300 digits
        raise MalformedFile(f"not usable JSON: {error}", where=where) from error


def parse_object(raw: bytes, where: str, *, unique_keys: bool = False) -> dict[str, object]:
    """The same, for files whose outermost value must be an object."""
    value = parse(raw, where, unique_keys=unique_keys)
    if not isinstance(value, dict):
        raise MalformedFile("the outermost value is not an object", where=where)
    return value


def object_in(value: object, key: str) -> dict[str, object]:
    """The object under ``key`` of ``value``; {} where there is none, or ``value`` is no object itself."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def text_in(value: object, key: str) -> str | None:
    """The text under ``key`` of ``value``; None where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets outside strings, without recursion and before anything is parsed."""
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return 0  # certainly not too deep
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    quoted = plain.translate(None, _OTHERS)
    if quoted.count(b'"') % 2 == 0:
        quoted = quoted.replace(b'""', b"")  # quicker: between them is nothing, or they join two texts
    brackets = re.sub(rb'"[^"]*"', b"", quoted)
    codes = numpy.frombuffer(brackets, numpy.uint8)
    steps = ((codes == ord("[")) | (codes == ord("{"))).astype(numpy.int8)
    steps -= ((codes == ord("]")) | (codes == ord("}"))).astype(numpy.int8)
    return int(numpy.cumsum(steps, dtype=numpy.int64).max(initial=0))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedFile(f"the key {shown(key)} occurs twice")
            seen.add(key)
    return found
