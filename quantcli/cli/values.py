"""Values of options that need no validator.

Typer makes one of pydantic's for every option of a command, also for those that nobody gave: to load pydantic and to
make them takes as long as to plan a model. What is plainly right is converted here; Typer looks at everything else, and
says what is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from typer.core import TyperCommand, TyperGroup

_Ordinary: TypeAlias = Callable[[Any, Any], Any]  # what Typer does with a value: (context, value) -> value
_LEFT = object()  # somebody else has to look


class _Plain:
    """Beside a class of Typer's: its options convert plain values without validators."""

    callback: Callable[..., Any] | None

    def get_params(self, context: Any) -> list[Any]:
        found: list[Any] = super().get_params(context)  # type: ignore[misc]  # of the class beside this one
        for option in found:
            if "process_value" not in vars(option):
                option.process_value = partial(self._value, option, option.process_value)
        return found

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        """What the function says of its arguments."""
        return get_type_hints(self.callback, include_extras=True) if self.callback else {}

    def _value(self, option: Any, ordinary: _Ordinary, context: Any, value: Any) -> Any:
        if value is None:
            found = _LEFT if option.required else () if option.multiple or option.nargs == -1 else None
        else:
            found = _converted(self._hints.get(option.name), value)
        if found is _LEFT:
            return ordinary(context, value)
        return found if option.callback is None else option.callback(context, option, found)


class Command(_Plain, TyperCommand):
    """A command of Typer's."""


class Group(_Plain, TyperGroup):
    """Typer's group of commands."""


def _converted(hint: Any, value: Any) -> Any:
    """The value of an option that is declared as ``hint``, or _LEFT."""
    if get_origin(hint) is not Annotated:
        return _LEFT
    kind, declared = get_args(hint)[:2]
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        kind = kinds[0] if len(kinds) == 1 else None
    if get_origin(kind) is not list:
        return _one(kind, declared, value)
    if not isinstance(value, (list, tuple)):
        return _LEFT
    (item,) = get_args(kind)
    found = [_one(item, declared, one) for one in value]
    return _LEFT if any(one is _LEFT for one in found) else found


def _one(kind: Any, declared: Any, value: Any) -> Any:
    if type(value) is kind and kind is not str:  # a default of ours
        return value
    convert = _PLAIN.get(kind)
    return convert(declared, value) if convert is not None and type(value) is str else _LEFT


def _path(declared: Any, value: str) -> Any:
    """Any name, where the declaration asks for nothing but that it can be read if it is there."""
    asked = declared.exists, declared.writable, declared.resolve_path, declared.allow_dash, declared.parser
    if any(asked) or not (declared.file_okay and declared.dir_okay):
        return _LEFT
    if declared.readable and os.path.exists(value) and not os.access(value, os.R_OK):
        return _LEFT
    return Path(value)


def _whole(declared: Any, value: str) -> Any:
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        return _LEFT
    number = int(value)
    low, high = declared.min, declared.max
    return number if (low is None or number >= low) and (high is None or number <= high) else _LEFT


#: how a text becomes an argument of this kind: (declaration, text) -> argument, or _LEFT
_PLAIN: Mapping[Any, Callable[[Any, str], Any]] = {
    str: lambda declared, value: _LEFT if declared.parser else value,
    Path: _path,
    int: _whole,
}
