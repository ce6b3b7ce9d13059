"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.schemas: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result


@dataclass(frozen=True, kw_only=True)
class ErrorDetails(Result):
    """``code`` is a word for scripts, ``where`` the place (file, tensor, byte), ``hint`` what to do."""

    code: str
    message: str
    where: str | None
    hint: str | None


@dataclass(frozen=True, kw_only=True)
class ErrorResult(Result):
    """What any command prints in place of its result when it fails."""

    schema: int
    error: ErrorDetails
