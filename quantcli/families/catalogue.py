"""The table of all families: every module of this package that has ``FAMILIES`` adds its own.

One family is found without importing the others (``index.py``).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from quantcli.errors import BadConfig, UnknownArchitecture
from quantcli.families import index
from quantcli.families.declaration import Family
from quantcli.sources.config import text_part

# What the name of a class ends with beyond the model's own name: with a head, a wrapper around it, or neither.
_BASE = ("TextModel", "Model")
_ENDINGS = (
    "ForCausalLM", "WithLMHeadModel", "LMHeadModel", "ForMaskedLM", "ForConditionalGeneration", "ForImageTextToText",
    "ForVision2Seq", *_BASE,
)  # fmt: skip
_WRAPPERS = ("ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")


@cache
def registry() -> dict[str, Family]:
    """All families by name."""
    return {family.name: family for family in index.every()}


def by_class(name: str | None) -> Family | None:
    """The family of a transformers class name, or of another class of the same model (base class, wrapper)."""
    exact = next((family for family in index.holding(name) if name in family.hf_architectures), None)
    return exact or (_by_stem(_stem(name)) if name and _stem(name) != name else None)


def _by_stem(stem: str) -> Family | None:
    """The last family with a class of this stem."""
    found = index.matching(lambda text: _stem(text) == stem)
    known = [family for family in found if any(_stem(name) == stem for name in family.hf_architectures)]
    return known[-1] if known else None


def _stem(name: str) -> str:
    """A class name without what it says about head and wrapper: "Qwen3ForCausalLM" and "Qwen3Model" are "Qwen3"."""
    return name.removesuffix(_ending(name))


def _ending(name: str) -> str:
    return next((ending for ending in _ENDINGS if name.endswith(ending)), "")


def named(name: str) -> Family:
    """The family that ``--architecture`` means: a class name, a family's name or a GGUF architecture, in any case."""
    wanted = name.lower()
    candidates = index.matching(lambda text: text.lower() == wanted)
    for family in candidates:
        if wanted in [family.name.lower(), *(known.lower() for known in family.hf_architectures)]:
            return family
    for family in candidates:
        if wanted == family.gguf_arch.lower():
            return family
    raise unknown(name)


def relative(family: Family, config: Mapping[str, object]) -> Family:
    """The family that ``config`` describes, of those that share this one's class."""
    name = family.relative(config) if family.relative else None
    return next(one for one in index.holding(name) if one.name == name) if name else family


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


class Choice(NamedTuple):
    """The family of a checkpoint, the settings of its language model, and whether its class has no output head."""

    family: Family
    config: Mapping[str, object]
    headless: bool


def choose(config: Mapping[str, object], architecture: str | None) -> Choice:
    """What a config.json describes.

    A wrapper holds the language model's settings in a part of its own (`text_part`); what that lacks stands outside.
    The part's own class decides, then the outer one, then the part's model_type. Raises UnknownArchitecture, BadConfig.
    """
    inner = text_part(config)
    stated, own = _stated(config), _stated(inner)
    text = {**config, **inner}
    headless = _ending(own or stated or "") in _BASE
    if architecture:
        return Choice(named(architecture), text, headless)
    known = by_class(own) or by_class(stated) or _by_model_type(inner)
    if known is None and (stated is None or stated.endswith(_WRAPPERS)):
        known = _by_model_type(config)
    if known is not None:
        return Choice(known, text, headless)
    if not (stated or config.get("model_type")):
        raise BadConfig(
            "names neither architectures nor a model_type", where="config.json", hint="name it with --architecture"
        )
    raise unknown(stated or str(config["model_type"]))


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
    return next((family for family in index.holding(kind) if kind in family.model_types), None)
