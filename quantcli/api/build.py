"""JSON objects of commands -> dataclasses, by the types that both are made from."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin, is_typeddict

from quantcli.api import results
from quantcli.report.schemas import fields


def built(hint: Any, value: Any) -> Any:
    """``value``, which is of the (typed dictionary's or any other) type ``hint``, with dataclasses for objects."""
    if is_typeddict(hint):
        made = getattr(results, hint.__name__)
        return made(
            json=value, **{name: built(kind, value[name]) for name, (kind, _) in fields(hint).items() if name in value}
        )
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return built(next(one for one in arguments if _fits(one, value)), value)
    if origin in (list, Sequence):
        return [built(arguments[0], one) for one in value]
    if origin in (dict, Mapping):
        return {name: built(arguments[1], one) for name, one in value.items()}
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of one of several types: objects are told apart by their fields."""
    if not is_typeddict(hint):
        return not isinstance(value, Mapping) and (value is None) == (hint is type(None))
    if not isinstance(value, Mapping):
        return False
    known = fields(hint)
    return value.keys() <= known.keys() and all(name in value for name, (_, always) in known.items() if always)
