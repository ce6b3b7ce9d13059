"""A format of packed weights, a group of packed tensors, and the checks that all formats need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import BadConfig, ShapeMismatch, UnsupportedFile
from quantcli.sources.files import StoredTensor
from quantcli.sources.tensor import LogicalTensor

Settings = Mapping[str, object]  # quantization_config of config.json


@dataclass(frozen=True, slots=True)
class Group:
    """The stored tensors of one logical tensor, by the ending of their names; ``name`` is what stands before it."""

    name: str
    parts: Mapping[str, StoredTensor]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of packing weights; see the documentation of this package."""

    method: str
    parts: tuple[str, ...]
    marks: tuple[str, ...]
    recognise: Callable[[Settings, Mapping[str, StoredTensor]], bool]
    logical: Callable[[Settings, Group], Iterable[LogicalTensor]]
    optional: frozenset[str] = frozenset()
    evident: bool = False  # its tensors alone tell what they are, without settings
    takes: Callable[[Mapping[str, StoredTensor]], bool] = lambda parts: True  # which format of a method has these parts


def check(part: StoredTensor, dtypes: Sequence[str], shape: Sequence[int] | None = None) -> None:
    """Raises UnsupportedFile where ``part`` is of none of these dtypes, ShapeMismatch where it has another shape."""
    if part.dtype not in dtypes:
        raise UnsupportedFile(
            f"is of type {part.dtype}; {', '.join(dtypes)} can be read here",
            where=part.where,
            hint="quantized checkpoints of this kind cannot be converted; use the original weights",
        )
    if shape is not None and part.shape != tuple(shape):
        raise ShapeMismatch(
            f"has the shape {list(part.shape)}, the packed weights ask for {list(shape)}",
            where=part.where,
            hint="codes and scales do not belong together: get the checkpoint again",
        )


def whole_number(settings: Settings, *keys: str) -> int | None:
    """The first of these entries that is there and not null. Raises BadConfig where it is no whole number."""
    for key in keys:
        value = settings.get(key)
        if value is not None:
            if type(value) is not int:
                raise bad_setting(f"{key} is {value!r}, no whole number")
            return value
    return None


def bad_setting(message: str) -> BadConfig:
    """The error for a quantization_config that makes no sense."""
    return BadConfig(
        f"quantization_config: {message}", where="config.json", hint="the checkpoint's config.json is damaged"
    )


def of_dtypes(ending: str, *dtypes: str) -> Callable[[Mapping[str, StoredTensor]], bool]:
    """A test for `Format.takes`: whether the part with this ending is of one of these dtypes."""
    return lambda parts: ending in parts and parts[ending].dtype in dtypes
