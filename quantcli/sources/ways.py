"""The ways to a source: what a path may be that is not one of this machine. A row per way."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from quantcli.errors import MissingFile
from quantcli.sources.hub import address as hub


class Way(NamedTuple):
    """``recognise`` gives what a path means, or None; ``find``, in a module that is brought for it, the path here."""

    recognise: Callable[[str | os.PathLike[str]], object | None]
    module: str
    spelled: Callable[[str | os.PathLike[str]], str]
    suggest: Callable[[str | os.PathLike[str]], str | None]


WAYS = (Way(hub.parse, "quantcli.sources.hub.tree", hub.spelled, hub.suggestion),)


def find(path: str | os.PathLike[str]) -> Path:
    """The path on this machine that ``path`` is, or stands for: a folder whose large files may be mounted (`places`).

    Raises UsageError for an address that is spelled wrong, and what the way raises.
    """
    for way in WAYS:
        meant = way.recognise(path)
        if meant is not None:
            found: Path = importlib.import_module(way.module).find(meant)
            return found
    return Path(path)


def spelled(path: str | os.PathLike[str]) -> str:
    """``path`` for a message or a result, as a user would type it."""
    return next((way.spelled(path) for way in WAYS), os.fspath(path))


def missing(
    path: str | os.PathLike[str], message: str = "no such file or folder", hint: str | None = None
) -> MissingFile:
    """The error for a path where nothing is, with what may be meant: a name near it first, then a far place."""
    near = nearest(os.fspath(path))
    meant = next(filter(None, (way.suggest(path) for way in WAYS)), None)
    if near is not None:
        hint = f"did you mean {near}?"
    elif meant:
        hint = f"a repository of the hub is written {meant}"
    return MissingFile(message, where=os.fspath(path), hint=hint)


def nearest(path: str) -> str | None:
    """What lies beside ``path`` under nearly its name; None where nothing does, or ``path`` is there itself."""
    if os.path.lexists(path):
        return None
    folder, name = os.path.split(path)
    try:
        there = os.listdir(folder or ".")
    except OSError:
        return None
    near = difflib.get_close_matches(name, there, 1, 0.75)
    return os.path.join(folder, near[0]) if near else None
