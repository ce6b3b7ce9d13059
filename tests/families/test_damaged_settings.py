"""Settings of projectors and adapters, each field damaged: an error with a hint, or a model, never anything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers import outlines
from quantcli import loader
from quantcli.errors import QuantcliError

VALUES = (None, -1, 0, "x", [], {}, 1e99, True, 3, [1, "a"], [[1]], 10**12, float("nan"))
WEIGHTS = {"mmproj": "model.safetensors", "lora": "adapter_model.safetensors"}
CASES = [(kind, name) for kind in WEIGHTS for name in outlines.packed(kind)]


def fields(content: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from fields(value, (*path, key))


def damaged(content: Mapping[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    found = copy.deepcopy(dict(content))
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


def open_it(kind: str, folder: Path) -> None:
    try:
        model = loader.open_projector(folder) if kind == "mmproj" else loader.open_adapter(folder, folder / "base")
    except QuantcliError as error:
        assert error.hint, error
    else:
        model.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_field(kind: str, name: str, tmp_path: Path) -> None:
    one = outlines.packed(kind)[name]
    folder = outlines.write(one, tmp_path / name, WEIGHTS[kind])
    for file, content in one["files"].items():
        for path in fields(content):
            if "text_config" in path:
                continue  # the language model's, which the families' tests damage
            for value in VALUES:
                (folder / file).write_text(json.dumps(damaged(content, path, value)))
                open_it(kind, folder)
        (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize(("kind", "name"), [CASES[0], CASES[-1]])
def test_some_fields(kind: str, name: str, tmp_path: Path) -> None:
    one = outlines.packed(kind)[name]
    folder = outlines.write(one, tmp_path / name, WEIGHTS[kind])
    for file, content in one["files"].items():
        for number, path in enumerate(fields(content)):
            (folder / file).write_text(json.dumps(damaged(content, path, VALUES[number % len(VALUES)])))
            open_it(kind, folder)
        (folder / file).write_text(json.dumps(content))
