"""What `quantcli assemble` finds out, as types (the object that --json prints) and as people read it."""

from __future__ import annotations

from typing import TypedDict

from quantcli.report.results import CheckedFile
from quantcli.report.terminal import Reporter, size
from quantcli.report.texts import counted


class SetResult(TypedDict):
    """A model of the folder. ``shards``: that it should have, ``present``: that could be read; ``plan``: its mark."""

    name: str
    shards: int
    present: int
    bytes: int
    tensors: int
    plan: str | None


class AssembleResult(TypedDict):
    """`quantcli assemble`. ``checksums``: the list that was written."""

    schema: int
    ok: bool
    folder: str
    sets: list[SetResult]
    files: list[CheckedFile]
    problems: list[str]
    checksums: str | None


def show(reporter: Reporter, result: AssembleResult) -> None:
    """A line per model, then what is wrong."""
    for one in result["sets"]:
        files = f"{one['present']} of {one['shards']} shards" if one["shards"] > 1 else "one file"
        reporter.line(f"{one['name']}: {files}, {one['tensors']} tensors, {size(one['bytes'])}")
    for problem in result["problems"]:
        reporter.line(f"FAIL  {problem}")
    if result["ok"]:
        reporter.line("ok    all parts are there, whole and of one plan")
    if result["checksums"] is not None:
        reporter.note(f"sums of {counted(len(result['files']), 'file')}: {result['checksums']}")
