"""The table of all families: every module of this package that has ``FAMILIES`` adds its own."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from quantcli.errors import BadConfig, UnknownArchitecture
from quantcli.families.declaration import Family

_WRAPPERS = ("ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")


@cache
def registry() -> dict[str, Family]:
    """All families by name."""
    package = importlib.import_module("quantcli.families")
    found: dict[str, Family] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"quantcli.families.{info.name}")
        for family in getattr(module, "FAMILIES", ()):
            found[family.name] = family
    return found


def by_class(name: str) -> Family | None:
    """The family of a transformers class name."""
    return next((family for family in registry().values() if name in family.hf_architectures), None)


def named(name: str) -> Family:
    """The family that ``--architecture`` means: a class name, a family's name or a GGUF architecture, in any case."""
    wanted = name.lower()
    for family in registry().values():
        if wanted in [family.name.lower(), *(known.lower() for known in family.hf_architectures)]:
            return family
    for family in registry().values():
        if wanted == family.gguf_arch.lower():
            return family
    raise unknown(name)


def unknown(name: str) -> UnknownArchitecture:
    """The error for an architecture that no family declares, with the nearest known ones."""
    known: dict[str, str] = {}
    for family in registry().values():
        for spelling in (*family.hf_architectures, family.name):
            known.setdefault(spelling.lower(), spelling)
    near = [known[key] for key in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)]
    nearest = f"nearest known: {', '.join(near)}; " if near else f"known: {', '.join(sorted(registry()))}; "
    return UnknownArchitecture(
        f"no family declares the architecture {name!r}",
        where="config.json",
        hint=nearest + "--architecture NAME reads the checkpoint as one of them",
    )


def choose(config: Mapping[str, object], architecture: str | None) -> tuple[Family, Mapping[str, object], bool]:
    """The family of a config.json, the part of it that describes the language model, and whether it was wrapped.

    A multimodal class holds the language model's settings in ``text_config``; its own fields fill what that lacks.
    Raises UnknownArchitecture, BadConfig.
    """
    stated = _stated(config)
    inner = config.get("text_config")
    known = by_class(stated) if stated else None
    inner = inner if isinstance(inner, Mapping) and known is None else None
    wrapped = inner is not None
    text = {**config, **(inner or {})}
    if architecture:
        return named(architecture), text, wrapped
    if inner is not None and (stated is None or stated.endswith(_WRAPPERS)):
        known = by_class(_stated(inner) or "") or _by_model_type(inner)
    elif known is None:
        known = _by_model_type(config) if stated is None else None
    if known is None and not (stated or config.get("model_type")):
        raise BadConfig(
            "names neither architectures nor a model_type", where="config.json", hint="name it with --architecture"
        )
    if known is None:
        raise unknown(stated or str(config["model_type"]))
    return known, text, wrapped


def _stated(config: Mapping[str, object]) -> str | None:
    """The first of ``architectures``."""
    names = config.get("architectures")
    if names is None or names == []:
        return None
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise BadConfig("architectures is no list of names", where="config.json", hint="name it with --architecture")
    return names[0]


def _by_model_type(config: Mapping[str, object]) -> Family | None:
    kind = config.get("model_type")
    return next((family for family in registry().values() if kind in family.model_types), None)
