"""The files that this process has given their final names: what an interrupted run has left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_published: list[Path] = []
_kept: list[Path] = []  # journals of what can be resumed


def published() -> list[Path]:
    """The files, in the order in which they got their names."""
    return list(_published)


def note(path: Path) -> None:
    _published.append(path)


def keep(path: Path, *, kept: bool) -> None:
    """Whether what this process has written for the journal ``path`` can be gone on with."""
    if kept:
        _kept.append(path)
    else:
        with suppress(ValueError):
            _kept.remove(path)


def is_kept() -> bool:
    """Whether the same command would go on where this process ends."""
    return bool(_kept)


def forget(path: Path) -> None:
    with suppress(ValueError):
        _published.remove(path)


def listing(paths: Sequence[Path]) -> str:
    """Some paths, for a message."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return "their names: " + ", ".join(map(str, paths[:3])) + more if len(paths) > 1 else f"its name: {paths[0]}"
