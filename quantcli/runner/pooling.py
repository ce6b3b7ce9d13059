"""One vector for a text: the last hidden states pooled as the file says, and the scores of models that rank.

Shapes: S sequences of T positions, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy

from quantcli.errors import UsageError
from quantcli.runner.arrays import Floats
from quantcli.runner.operations import gelu, softmax

if TYPE_CHECKING:
    from quantcli.runner.network import Network

NUMBERS: Mapping[str, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # GGUF's pooling_type
NAMES: Mapping[int, str] = {number: name for name, number in NUMBERS.items()}

_REDUCED: Mapping[str, Callable[[Floats], Floats]] = {
    "mean": lambda states: states.mean(axis=1, dtype=numpy.float32),
    "cls": lambda states: states[:, 0],
    "last": lambda states: states[:, -1],
}


def kind_of(network: Network, wished: str | None) -> tuple[str, str | None]:
    """How a model pools, "mean", "cls", "last" or "rank", and a remark where nobody says it.

    ``wished`` goes first. Raises UsageError for a way that it does not have.
    """
    ranks = "cls.output.weight" in network.weights or "cls.weight" in network.weights
    if wished is not None and wished not in (*_REDUCED, "rank"):
        raise UsageError(f"there is no pooling {wished!r}", where="--pooling", hint="known: mean, cls, last, rank")
    if wished == "rank" and not ranks:
        raise UsageError("the model has no classifier, so it ranks nothing", where="--pooling", hint="leave it out")
    stated = NAMES.get(network.settings.pooling, "none")
    if wished or stated != "none":
        return wished or stated, None
    if ranks:
        return "rank", None
    return "mean", "the file does not say how it pools: the mean is taken (--pooling names another way)"


def pooled(network: Network, states: Floats, kind: str) -> Floats:
    """The last hidden states [S, T, H] as one vector each, [S, H]; for "rank" the scores of the labels, [S, L]."""
    if kind != "rank":
        return numpy.ascontiguousarray(_REDUCED[kind](states))
    return _scores(network, _REDUCED[_before_classifier(network)](states))


def _before_classifier(network: Network) -> str:
    """What a classifier reads: as the file says, else the first token of models that see both directions."""
    stated = NAMES.get(network.settings.classifier_pooling, "none")
    return stated if stated in _REDUCED else "last" if network.settings.causal else "cls"


def _scores(network: Network, x: Floats) -> Floats:
    """A classifier on vectors [S, H]: [S, L]. llama.cpp's: a dense layer, what follows it, and the labels' layer."""
    weights, kind = network.weights, network.settings.graph.classifier
    if "cls.weight" in weights:
        (x,) = network.operations.multiply(x, weights.matrix("cls", x.shape[1]))
        x = gelu(x) if kind == "gelu" else numpy.tanh(x)
        x = network.engine.norm("cls.norm", x) if "cls.norm.weight" in weights else x
    if "cls.output.weight" in weights:
        (x,) = network.operations.multiply(numpy.ascontiguousarray(x), weights.matrix("cls.output", x.shape[1]))
    if kind == "softmax":
        softmax(x)
    return x
