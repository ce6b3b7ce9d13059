"""Numbers that are NaN or infinite end a pass, where they first appear: nothing is measured with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy

from quantcli.errors import NonFiniteResult
from quantcli.runner.arrays import Floats

HINT = "a weight is damaged, or activations overflow: `quantcli verify` looks at the weights"


def check(x: Floats, what: str, where: str) -> Floats:
    """``x``, of which ``what`` made every element. Raises NonFiniteResult."""
    if not numpy.isfinite(x).all():
        number = "NaN" if numpy.isnan(x).any() else "an infinite number"
        raise NonFiniteResult(f"{what} gives {number}", where=where, hint=HINT)
    return x


def require_figures(result: object, where: str, path: str = "the result") -> None:
    """Whether all numbers of a command's result (nested mappings and sequences) are finite. Raises NonFiniteResult."""
    if isinstance(result, float) and not isfinite(result):
        raise NonFiniteResult(f"{path} is {result}", where=where, hint=HINT)
    if isinstance(result, Mapping):
        for key, value in result.items():
            require_figures(value, where, f"{path}.{key}" if path != "the result" else str(key))
    elif isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        for index, value in enumerate(result):
            require_figures(value, where, f"{path}[{index}]")
