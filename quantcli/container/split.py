"""A model in several GGUF files: `<prefix>-00001-of-00003.gguf` and so on.

Every shard is a GGUF file of its own and says which one it is (`split.no`, from 0), how many there are
(`split.count`) and how many tensors they hold together (`split.tensors.count`). The first one has all other metadata.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quantcli import places
from quantcli.container.header import Header
from quantcli.container.read import read_header
from quantcli.errors import MalformedFile, MissingFile

SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS = "split.no", "split.count", "split.tensors.count"
SET_KEY = "quantcli.set"  # a hash of the plan in every shard that quantcli writes
SPLIT_KEYS = (SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS)
MOST_SHARDS = 99_999  # five digits
_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def shard_name(prefix: str, index: int, count: int) -> str:
    """The file name of shard ``index`` (from 0) of ``count``."""
    return f"{prefix}-{index + 1:05d}-of-{count:05d}.gguf"


def split_name(name: str) -> tuple[str, int, int] | None:
    """(prefix, index from 0, count) of a shard's file name, or None for any other name."""
    match = _NAME.fullmatch(name)
    return (match["prefix"], int(match["number"]) - 1, int(match["count"])) if match else None


def read_split_headers(first_path: str | os.PathLike[str]) -> list[Header]:
    """The headers of all shards, given the first one; a list of one for a model that is not split.

    Raises MissingFile naming the shard that is not there, MalformedFile where shards do not belong together or the
    path is a later shard's.
    """
    path = Path(first_path)
    first = read_header(path)
    count = _number(first, SPLIT_COUNT, 1)
    if count <= 1:
        return [first]
    prefix = _prefix(first, count)
    headers = [first]
    for index in range(1, count):
        other = path.with_name(shard_name(prefix, index, count))
        if not places.exists(other):
            raise _missing(other, index, count)
        headers.append(read_header(other))
        _check_place(headers[-1], index, count)
    _check_set(headers)
    _check_tensors(headers)
    return headers


def check_set(header: Header) -> None:
    """Whether a file that says it is a shard belongs to a whole set, all of one conversion. Raises MissingFile,
    MalformedFile; any other file is fine."""
    first = first_of_set(header)
    if first is None:
        return
    if not places.exists(first):
        raise _missing(first, 0, _number(header, SPLIT_COUNT))
    if header.path not in [other.path for other in read_split_headers(first)]:
        raise MalformedFile(f"does not belong to {first.name}", where=str(header.path))


def first_of_set(header: Header) -> Path | None:
    """The first shard of the file's set (maybe the file itself), None for a file that is no shard. Raises
    MalformedFile where the file says nonsense about shards, or its name says something else."""
    count = _number(header, SPLIT_COUNT, 1)
    if count <= 1:
        return None
    number, parts = _number(header, SPLIT_NO), split_name(header.path.name)
    if number >= count or count > MOST_SHARDS:
        raise MalformedFile(f"claims to be shard {number + 1} of {count}", where=str(header.path))
    if parts is None or parts[1:] != (number, count):
        raise _misnamed(header.path, number, count)
    return header.path.with_name(shard_name(parts[0], 0, count))


def _missing(path: Path, index: int, count: int) -> MissingFile:
    return MissingFile(
        f"shard {index + 1} of {count} is missing", where=str(path), hint="all shards have to lie in one folder"
    )


def _misnamed(path: Path, index: int, count: int) -> MalformedFile:
    what = f"the first of {count} shards" if not index else f"shard {index + 1} of {count}"
    return MalformedFile(
        f"this is {what}, but its name does not say so",
        where=str(path),
        hint=f"name the shards like {shard_name(path.stem, index, count)}",
    )


def _check_set(headers: list[Header]) -> None:
    """Shards of two conversions under one set of names, as a killed run could leave them, are no model."""
    marks = [header.metadata.get(SET_KEY) for header in headers]
    first = marks[0].data if marks[0] is not None else None
    for header, mark in zip(headers, marks, strict=True):
        if (mark.data if mark is not None else None) != first:
            raise MalformedFile(
                "this shard and the first one are of two conversions",
                where=str(header.path),
                hint="convert again with --force: all shards are written anew",
            )


def is_first_of_several(header: Header) -> bool:
    """Whether the file says that it is the first shard. Raises MalformedFile where it says nonsense about shards."""
    return _number(header, SPLIT_COUNT, 1) > 1 and _number(header, SPLIT_NO) == 0


def _number(header: Header, key: str, default: int | None = None) -> int:
    value = header.metadata.get(key)
    if value is None and default is not None:
        return default
    if value is None or not isinstance(value.data, int) or value.data < 0:
        stated = "missing" if value is None else f"no count: {value.type.name}"
        raise MalformedFile(f"the metadata key {key} is {stated}", where=str(header.path))
    return value.data


def _prefix(first: Header, count: int) -> str:
    """What the shards' names begin with, after checking that this is the first shard and named like one."""
    number = _number(first, SPLIT_NO)
    parts = split_name(first.path.name)
    if number >= count or count > MOST_SHARDS:
        raise MalformedFile(f"claims to be shard {number + 1} of {count}", where=str(first.path))
    if number:
        name = shard_name(parts[0] if parts else first.path.stem, 0, count)
        raise MalformedFile(
            f"this is shard {number + 1} of {count}",
            where=str(first.path),
            hint=f"give the first one: {first.path.with_name(name)}",
        )
    if parts is None or parts[1:] != (0, count):
        raise _misnamed(first.path, 0, count)
    return parts[0]


def _check_place(header: Header, index: int, count: int) -> None:
    stated = _number(header, SPLIT_NO), _number(header, SPLIT_COUNT)
    if stated != (index, count):
        raise MalformedFile(
            f"should be shard {index + 1} of {count}, says it is {stated[0] + 1} of {stated[1]}", where=str(header.path)
        )


def _check_tensors(headers: list[Header]) -> None:
    owners: dict[str, Header] = {}
    for header in headers:
        for info in header.tensors:
            other = owners.setdefault(info.name, header)
            if other is not header:
                raise MalformedFile(f"tensor {info.name!r} is also in {other.path.name}", where=str(header.path))
    stated = _number(headers[0], SPLIT_TENSORS)
    if stated != len(owners):
        raise MalformedFile(
            f"{SPLIT_TENSORS} is {stated}, the shards hold {len(owners)} tensors", where=str(headers[0].path)
        )
