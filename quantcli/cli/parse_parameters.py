"""Numbers of parameters as people write them: 8B, 1.1B, 600M."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantcli.errors import UsageError

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
LEAST, MOST = 1e5, 1e14


def parse(texts: Sequence[str]) -> list[float]:
    """The numbers of ``texts``. Raises UsageError."""
    return [_number(text) for text in texts]


def _number(text: str) -> float:
    hint = "say a number of weights, as in `quantcli bench --parameters 8B` or 600M"
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)([KMBT]?)", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(f"not a number of parameters: {text!r}", where="--parameters", hint=hint)
    number = float(found[1]) * UNITS[found[2].upper()]
    if not LEAST <= number <= MOST:
        raise UsageError(f"{text} parameters are no model", where="--parameters", hint=hint)
    return number
