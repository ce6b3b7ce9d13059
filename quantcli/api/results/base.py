"""What all results have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """``json``: the object that --json prints."""

    json: Mapping[str, Any] = field(repr=False, compare=False)
