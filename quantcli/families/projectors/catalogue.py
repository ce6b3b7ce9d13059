"""The table of all projectors: every module of this package that has ``PROJECTORS`` adds its own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from quantcli.families.projectors.declaration import Projector


@cache
def registry() -> dict[str, Projector]:
    """All projectors by name."""
    package = importlib.import_module("quantcli.families.projectors")
    found: dict[str, Projector] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for projector in getattr(module, "PROJECTORS", ()):
            found[projector.name] = projector
    return found


def find(config: Mapping[str, object]) -> Projector | None:
    """The projector of a wrapper's config.json: by its class, else by its model_type; None where none is declared."""
    stated = config.get("architectures")
    names = stated if isinstance(stated, list) else []
    known = registry().values()
    exact = next((one for one in known if any(name in one.hf_architectures for name in names)), None)
    return exact or next((one for one in known if config.get("model_type") in one.model_types), None)
