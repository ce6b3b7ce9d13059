"""What is known of GGUF architectures, by the name in ``general.architecture``: what converter and runner share.

``architecture.py`` is the vocabulary; the data is in ``gguf_<stem>.py``, one small file per group of relatives. An
architecture belongs into the file whose stem its name begins with (the longest one; "-" reads "_"), so that a name
leads to its file and no other file is read. ``keys.py`` says which metadata a forward pass reads, ``roles.py`` which
tensors are what, ``fixed.py`` which tensors keep their type, ``topology.py`` which tensor feeds which.
"""

from __future__ import annotations

import importlib
import os
from functools import cache

from quantcli.architectures.architecture import Architecture, Graph

__all__ = ["Architecture", "Graph", "every", "find"]

_PREFIX, _SUFFIX = "gguf_", ".py"


@cache
def find(name: str) -> Architecture:
    """The architecture of this name; of one that no file declares nothing is known but its name (``graph`` is None)."""
    plain = name.replace("-", "_")
    stem = max((stem for stem in _stems() if plain.startswith(stem)), key=len, default=None)
    found = _declared(stem) if stem else ()
    return next((architecture for architecture in found if architecture.name == name), Architecture(name))


def every() -> dict[str, Architecture]:
    """All declared architectures by name: reads every file, for tests and tables."""
    return {architecture.name: architecture for stem in _stems() for architecture in _declared(stem)}


@cache
def _stems() -> tuple[str, ...]:
    names = sorted(name for name in os.listdir(os.path.dirname(__file__)) if name.endswith(_SUFFIX))
    return tuple(name[len(_PREFIX) : -len(_SUFFIX)] for name in names if name.startswith(_PREFIX))


def _declared(stem: str) -> tuple[Architecture, ...]:
    found: tuple[Architecture, ...] = importlib.import_module(f"{__name__}.{_PREFIX}{stem}").ARCHITECTURES
    return found
