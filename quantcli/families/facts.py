"""config.json -> facts: checked numbers under one name each, with the defaults of the transformers config classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from quantcli.errors import BadConfig
from quantcli.families.config import Config
from quantcli.families.fields import REQUIRED, Field

_KINDS = {"count": "an integer", "real": "a finite number", "flag": "true or false", "text": "a string"}


def bad(field: str, problem: str, hint: str | None = None) -> BadConfig:
    """The error for ``field`` of config.json."""
    return BadConfig(f"{field} {problem}", where="config.json", hint=hint or "the checkpoint's config.json is damaged")


# A number, a word, a flag, a list, a function of the layer, or None: the family that declares a fact knows which.
Fact: TypeAlias = Any


class EachLayer(tuple[Fact, ...]):
    """A fact that differs between layers: one value for each of them."""


class Facts(dict[str, Fact]):
    """What a family knows about one checkpoint: fact name -> value (None where absent); also as attributes.

    ``config`` is the flattened config.json (see ``flatten``); ``file(name)`` reads another JSON file of the folder
    (None where it is missing); ``stored`` are the names of the checkpoint's tensors.
    """

    def __init__(self, config: Mapping[str, object], file: Callable[[str], object], stored: Sequence[str] = ()) -> None:
        super().__init__()
        self.config, self.file, self.stored = config, file, stored
        self.assumed: dict[str, Fact] = {}  # what config.json does not say -> the default that was taken
        self.declared: Mapping[str, object] = {}  # names of facts -> what each is settled from
        self._layers: dict[int, Facts] = {}

    def __missing__(self, name: str) -> Fact:
        """A declared fact that nobody has asked for yet: others may depend on it, in any order of declaration."""
        if name not in self.declared:
            raise KeyError(name)
        source = self.declared[name]
        if isinstance(source, Field):
            self[name] = self.read(source)
        else:
            self[name] = source(self) if callable(source) else source
        return self[name]

    def __getattr__(self, name: str) -> Fact:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def read(self, field: Field) -> Fact:
        """The value of ``field``. Raises BadConfig naming the field, when it is absent, of a wrong kind or absurd."""
        found = [(name, value) for name in field.names if (value := self.find(name)) is not None]
        if found:
            return _checked(*found[0], field)
        if field.default is REQUIRED:
            names = " (or ".join(field.names[:2]) + ")" * (len(field.names) > 1)
            raise bad(names, "is missing", "a config.json that describes the model is needed")
        default = field.default
        if isinstance(default, str) and default.startswith("="):
            default = self[default[1:]]
        if default is not None:
            self.assumed[field.names[0]] = default
        return default

    def quotient(self, total: str, parts: str, config_names: tuple[str, str]) -> int:
        """Fact ``total`` divided by fact ``parts``. Raises BadConfig when it leaves a remainder."""
        if self[total] % self[parts]:
            raise bad(config_names[0], f"{self[total]} is no multiple of {config_names[1]} {self[parts]}")
        quotient: int = self[total] // self[parts]
        return quotient

    def size(self, dimension: str | int) -> int:
        """A symbolic dimension: sums of products of facts and integers ("q+2*kv")."""
        if isinstance(dimension, int):
            return dimension
        return sum(math.prod(self._factor(name) for name in term.split("*")) for term in dimension.split("+"))

    def at(self, layer: int) -> Facts:
        """The facts of one layer: what differs between layers has this one's value."""
        found = self._layers.get(layer)
        if found is None:
            own = {name: value[layer] for name, value in self.items() if isinstance(value, EachLayer)}
            found = self
            if own:
                found = Facts(self.config, self.file, self.stored)
                found.update(self)
                found.update(own)
            self._layers[layer] = found
        return found

    def _factor(self, name: str) -> int:
        factor: int = int(name) if name.isdigit() else self[name]
        return factor

    def find(self, dotted: str) -> object:
        """What config.json holds under a name that may reach into objects; None where it is missing."""
        value: object = self.config
        for part in dotted.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value


def _checked(name: str, value: object, field: Field) -> bool | int | float | str:
    """``value`` of config.json as ``field`` wants it. Raises BadConfig."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if field.kind == "flag" and isinstance(value, bool):
        return value
    if field.kind == "text" and isinstance(value, str):
        return value
    if field.kind == "count" and number and isinstance(value, int):
        return _in_range(name, value, field)
    if field.kind == "real" and number and isinstance(value, (int, float)) and abs(value) < 3.4e38:
        return float(_in_range(name, value, field))
    raise bad(name, f"is {_shown(value)}; {_KINDS[field.kind]} is expected")


def _in_range(name: str, value: int | float, field: Field) -> int | float:
    if not field.least <= value <= field.most:
        raise bad(name, f"is {_shown(value)}; {field.least:g} to {field.most:g} is possible")
    return value


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def settle(
    declared: Mapping[str, object],
    config: Mapping[str, object],
    file: Callable[[str], object],
    headless: bool = False,
    stored: Sequence[str] = (),
    numbers: Mapping[str, Sequence[float]] | None = None,
) -> Facts:
    """All facts that a family declares: fields are read, functions called, constants taken, each when first asked for.

    ``headless``: the class has no output head, so that none is missed. ``stored``: names of the tensors.
    ``numbers``: facts that tensors hold.
    """
    facts = Facts(Config(flatten(config)), file, stored)
    facts["headless"] = headless
    facts.update(numbers or {})
    facts.declared = declared
    for name in declared:
        facts[name]
    return facts


def flatten(config: Mapping[str, object]) -> dict[str, object]:
    """The newer spelling of the rope settings (``rope_parameters``) written as the older one.

    ``rope_parameters`` holds theta and scaling together, or one such object per kind of layer.
    """
    flat = dict(config)
    if isinstance(bases := flat.get("rope_theta"), list) and len(bases) > 1:  # of every layer: full first, then windows
        flat |= {"rope_theta": bases[0], "rope_local_base_freq": bases[1]}
    parameters = flat.get("rope_parameters")
    if not isinstance(parameters, Mapping):
        return flat
    local = parameters.get("sliding_attention")
    if isinstance(local, Mapping):
        flat.setdefault("rope_local_base_freq", local.get("rope_theta"))
    full = parameters.get("full_attention")
    parameters = full if isinstance(full, Mapping) else parameters
    for name in ("rope_theta", "partial_rotary_factor"):
        if flat.get(name) is None and parameters.get(name) is not None:
            flat[name] = parameters[name]
    if flat.get("rope_scaling") is None:
        flat["rope_scaling"] = dict(parameters)
    return flat
