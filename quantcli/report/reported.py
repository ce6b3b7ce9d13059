"""What the report of a conversion says, as types: the object that --json prints under "report"."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from quantcli.report.measurements import ComparedModel

MADE, SEARCH, STOCK = "made", "search alone", "stock"


class ReportedFile(TypedDict):
    """A file that was made, the same types by the search alone, or a stock recipe. ``kind``: one of these three.

    ``of``: the output (its path) that a search alone is about. ``measured``: on held-out text; absent where the model
    was not run.
    """

    kind: str
    name: str
    bytes: int
    bpw: float
    of: NotRequired[str]
    measured: NotRequired[ComparedModel]


class ReportedPart(TypedDict):
    """Predictions in one language (a guess). ``kld``, ``kld_se``, ``ppl_ratio``: per file, in the files' order."""

    name: str
    scored: int
    kld: list[float]
    kld_se: list[float]
    ppl_ratio: list[float]


class ReportedTensor(TypedDict):
    """One tensor of an output. ``loss``: the divergence that it alone causes, estimated before compensation."""

    name: str
    type: str
    bpw: float
    loss: float | None
    share: float | None  # of the loss of all that are known


class ReportedOutput(TypedDict):
    """The tensors of one output that are quantized."""

    path: str
    tensors: list[ReportedTensor]


class Report(TypedDict):
    """``unmeasured``: why the model was not run, None where it was. ``tokens``: of held-out text, with ``context``."""

    path: str
    unmeasured: str | None
    tokens: int
    context: int
    files: list[ReportedFile]
    parts: list[ReportedPart]
    outputs: list[ReportedOutput]
