"""The fields that families read from config.json: names, kinds, defaults and limits."""

from __future__ import annotations

from dataclasses import dataclass

REQUIRED = object()  # a field without which the model cannot be described


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Field:
    """One value read from config.json: the first of ``names`` that is present and not null, else ``default``.

    A dotted name reaches into an object ("rope_scaling.factor"). ``kind``: "count" (integer), "real", "flag", "text".
    ``default`` may be REQUIRED, a value, None (absent), or ``"=fact"`` for the value of an earlier fact.
    """

    names: tuple[str, ...]
    kind: str
    default: object = REQUIRED
    least: float = 0
    most: float = 2**31 - 1


def count(*names: str, default: object = REQUIRED, least: int = 1, most: int = 2**31 - 1) -> Field:
    return Field(names, "count", default, least, most)


def real(*names: str, default: object = REQUIRED, least: float = -1e30, most: float = 1e30) -> Field:
    return Field(names, "real", default, least, most)


def flag(*names: str, default: object = REQUIRED) -> Field:
    return Field(names, "flag", default)


def text(*names: str, default: object = REQUIRED) -> Field:
    return Field(names, "text", default)
