"""Numbers that a checkpoint keeps as tensors and GGUF as metadata: slopes, parameters of activations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from quantcli.errors import MissingTensors, UnsupportedFile
from quantcli.families import names
from quantcli.sources.tensor import SourceTensor

MOST = 1 << 16  # numbers of one tensor
_LAYER = "{layer}"


def read(
    declared: Mapping[str, str], prefixes: Sequence[str], sources: Sequence[SourceTensor]
) -> dict[str, list[float]]:
    """The numbers of each fact, layer by layer; [] where the checkpoint has none of its tensors.

    ``declared``: fact -> plain name of the tensor, with {layer} where each has one. Raises MissingTensors for a layer
    that is passed over, UnsupportedFile for a tensor that is too large to be a few numbers.
    """
    found: dict[str, dict[int, list[float]]] = {fact: {} for fact in declared}
    patterns = {fact: pattern(name) for fact, name in declared.items()}
    for tensor in sources if declared else ():
        plain, _ = names.plain(tensor.name, prefixes)
        for fact, expression in patterns.items():
            if match := expression.fullmatch(plain):
                found[fact][int(match[1]) if match.groups() else 0] = _values(tensor)
    for fact, layers in found.items():
        absent = next((layer for layer in range(len(layers)) if layer not in layers), None)
        if absent is not None:
            raise MissingTensors(f"{declared[fact].replace(_LAYER, str(absent))} is missing", where="the checkpoint")
    return {fact: [value for layer in sorted(layers) for value in layers[layer]] for fact, layers in found.items()}


def pattern(name: str) -> re.Pattern[str]:
    """What matches the plain name of a declared tensor; the layer is its group."""
    plain, _ = names.plain(name, ())  # as `bind` knows it
    return re.compile(re.escape(plain).replace(re.escape(_LAYER), r"(\d{1,7})"))


def _values(tensor: SourceTensor) -> list[float]:
    reader = tensor.reader()
    if reader.rows * reader.columns > MOST:
        raise UnsupportedFile(f"has the shape {list(tensor.shape)}; a few numbers are expected", where=tensor.where)
    values: list[float] = reader.read_rows(0, reader.rows).ravel().tolist()
    return values
