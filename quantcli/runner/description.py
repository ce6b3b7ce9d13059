"""Whether what a file says about its model fits together: settings, tensors, vocabulary; for every command alike.

Nothing is read or allocated but the metadata and the shapes of the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.container import Value, known
from quantcli.errors import BadTokenizer
from quantcli.runner import settings, shapes
from quantcli.runner.settings import NetworkSettings
from quantcli.runner.shapes import Shapes


def check(architecture: str, metadata: Mapping[str, Value], tensors: Shapes, where: str) -> NetworkSettings:
    """The settings of a model with these tensors; ``where`` names it in errors.

    Raises UnknownArchitecture and UnsupportedGraph for a model that the runner lacks; BadConfig and BadTokenizer, which
    name a key, MissingTensors and ShapeMismatch, which name a tensor, for one that contradicts itself.
    """
    found = settings.read_metadata(architecture, metadata, tensors, where)
    shapes.check(found, metadata, tensors, where)
    for key, problem in known.problems(metadata, known.TOKENIZER):
        raise BadTokenizer(f"{key} {problem}", where=key, hint="the file does not describe its vocabulary")
    return found
