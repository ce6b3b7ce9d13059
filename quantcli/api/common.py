"""What the functions of the Python interface share: paths, lists, and errors of one class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from quantcli.errors import MissingFile, OutputFailed, QuantcliError

PathLike: TypeAlias = str | os.PathLike[str]
Texts: TypeAlias = str | Sequence[str]


def several(texts: Texts) -> tuple[str, ...]:
    """One text, or all of them."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def paths(given: PathLike | Sequence[PathLike]) -> tuple[Path, ...]:
    """One path, or all of them."""
    return (Path(given),) if isinstance(given, str | os.PathLike) else tuple(map(Path, given))


def path(given: PathLike | None) -> Path | None:
    """A path where there is one."""
    return None if given is None else Path(given)


def check_names(function: str, options: Mapping[str, object], known: type) -> None:
    """Raises TypeError, as Python does, for an option that the typed dictionary ``known`` lacks."""
    for name in options:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() has no option {name!r}")


@contextmanager
def expected() -> Iterator[None]:
    """What can go wrong outside of this program becomes a QuantcliError, too."""
    try:
        yield
    except QuantcliError:
        raise
    except FileNotFoundError as error:
        raise MissingFile("no such file", where=str(error.filename)) from error
    except OSError as error:
        raise OutputFailed(error.strerror or str(error), where=error.filename) from error
    except MemoryError as error:
        raise QuantcliError("out of memory", hint="use fewer threads") from error
