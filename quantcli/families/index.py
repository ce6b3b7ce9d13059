"""Which file declares what, without importing it: the texts in quotes of every family's file.

A conversion needs one family of hundreds. Its file is found by the names that it must hold in quotes (of classes, model
types, families, GGUF architectures); only files that hold the name are imported, and what they declare decides.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from quantcli.families.declaration import Family

_QUOTED = re.compile(r"\"([A-Za-z][\w.-]*)\"")


@cache
def sources() -> Mapping[str, str]:
    """The text of every module of this package, in order of their names."""
    folder, found = os.path.dirname(__file__), {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py") and name != "__init__.py":
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found[name.removesuffix(".py")] = file.read()
    return found


def holding(text: object) -> list[Family]:
    """The families of all files that hold this text in quotes, in the order of `catalogue.registry`."""
    wanted = f'"{text}"'
    return families_of(name for name, source in sources().items() if wanted in source) if isinstance(text, str) else []


def matching(matches: Callable[[str], bool]) -> list[Family]:
    """The families of all files that hold a text in quotes that matches."""
    return families_of(name for name, source in sources().items() if any(map(matches, _QUOTED.findall(source))))


def every() -> list[Family]:
    """The families of all files."""
    return families_of(sources())


def families_of(modules: Iterable[str]) -> list[Family]:
    """What these modules declare."""
    found: list[Family] = []
    for name in modules:
        found += getattr(importlib.import_module(f"quantcli.families.{name}"), "FAMILIES", ())
    return found
