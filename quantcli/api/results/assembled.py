"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.assembled: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result
from quantcli.api.results.results import CheckedFile


@dataclass(frozen=True, kw_only=True)
class SetResult(Result):
    """A model of the folder. ``shards``: that it should have, ``present``: that could be read; ``plan``: its mark."""

    name: str
    shards: int
    present: int
    bytes: int
    tensors: int
    plan: str | None


@dataclass(frozen=True, kw_only=True)
class AssembleResult(Result):
    """`quantcli assemble`. ``checksums``: the list that was written."""

    schema: int
    ok: bool
    folder: str
    sets: list[SetResult]
    files: list[CheckedFile]
    problems: list[str]
    checksums: str | None
