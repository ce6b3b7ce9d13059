"""The options of a conversion as its outputs tell them: what decides bytes, without places on somebody's disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantcli.plan.overrides import Override
from quantcli.sources import digests

SIZES = ("target_size", "target_bpw", "like", "max_kld", "candidates", "at_least", "keep", "same_type")
#: options that decide bytes and are told as they were typed; all of convert's others decide none
_AS_TYPED = (
    "output_tensor_type", "token_embedding_type", "leave_output_tensor", "pure", "allow_requantize", "search", "method",
    "snap", "quality", "transforms", "sampled_tokens", "split_max_size", "keep_split", "metadata", "allow_no_imatrix",
    "architecture", "pre_tokenizer", "mmproj_only", "image_break", "lora_scale", "include_weights", "exclude_weights",
    *SIZES,
)  # fmt: skip
_USUAL: Mapping[str, object] = {"lora_scale": 1.0}
#: paths of which only that they were given is told: the hashes of what lies there stand beside it
_GIVEN = ("imatrix", "chat_template", "lora_base", "merge_lora", "statistics")


def recorded(given: Mapping[str, Any], overrides: Sequence[Override], calibration: Sequence[Path]) -> dict[str, object]:
    """The options of ``given`` (names of `convert`'s, as typed) that decide bytes and are not the usual ones."""
    found: dict[str, object] = {}
    for name in _AS_TYPED:
        value = given.get(name)
        if value is not None and value != _USUAL.get(name) and value not in ((), [], False, ""):
            found[name] = list(value) if isinstance(value, tuple | list) else value
    found |= {name: "auto" if str(given[name]) == "auto" else True for name in _GIVEN if given.get(name) is not None}
    if given.get("keep_statistics") is not None:  # the folder is the same, whether it was kept or found
        found["statistics"] = True
    if overrides:
        found["tensor_types"] = [f"{one.pattern}={one.type.name}" for one in overrides]
    if calibration:
        found["calibration"] = list(digests.sha256([str(path) for path in calibration]).values())
    return found


def text(options: Mapping[str, object]) -> str:
    """As it stands in a file: JSON with sorted keys."""
    return json.dumps(options, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_known(options: Mapping[str, object]) -> bool:
    """Whether options read from a file are such as `recorded` makes: a file may say anything."""
    names = {*_AS_TYPED, *_GIVEN, "type", "tensor_types", "calibration"}
    return options.keys() <= names and all(map(_is_value, options.values()))


def _is_value(value: object) -> bool:
    many = value if isinstance(value, list) else [value]
    return all(isinstance(one, str | int | float) for one in many)
