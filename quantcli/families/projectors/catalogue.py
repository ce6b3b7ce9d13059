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
    """The projector of a wrapper's config.json; None where none is declared.

    The tower's own class decides, then the wrapper's, then its model_type.
    """
    known = registry().values()
    tower = config.get("vision_config")
    for part in (tower if isinstance(tower, Mapping) else {}, config):
        stated = part.get("architectures")
        for name in stated if isinstance(stated, list) else []:
            found = next((one for one in known if name in one.hf_architectures), None)
            if found is not None:
                return found
    return next((one for one in known if config.get("model_type") in one.model_types), None)
