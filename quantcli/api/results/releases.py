"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.releases: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result


@dataclass(frozen=True, kw_only=True)
class DiffSide(Result):
    """One of two models that were compared."""

    path: str
    architecture: str
    files: int
    bytes: int
    tensors: int


@dataclass(frozen=True, kw_only=True)
class MetadataDifference(Result):
    """An entry that is not the same; None on the side that lacks it. Long values are cut."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True, kw_only=True)
class TensorDifference(Result):
    """One tensor of either model. None stands for what one side lacks, and for errors that were not computed.

    ``same``: equal types and bytes. ``blocks`` that differ, where the types are equal. ``error``: root of the mean
    squared difference of the decoded values over that of A's values; ``largest``: largest difference, ``row`` and
    ``column`` of it.
    """

    name: str
    shape: list[int]
    type_a: str | None
    type_b: str | None
    same: bool
    blocks: int | None
    error: float | None
    largest: float | None
    row: int | None
    column: int | None


@dataclass(frozen=True, kw_only=True)
class DiffResult(Result):
    """`quantcli diff`. ``same``: metadata and tensors are equal. ``tensors``: those asked for, else all."""

    schema: int
    same: bool
    a: DiffSide
    b: DiffSide
    metadata: list[MetadataDifference]
    tensors: list[TensorDifference]


@dataclass(frozen=True, kw_only=True)
class Ingredient(Result):
    """Something that a file was made from. ``recorded`` and ``found``: hashes; None where there is none to compare."""

    name: str
    recorded: str | None
    found: str | None
    same: bool


@dataclass(frozen=True, kw_only=True)
class ReproducedFile(Result):
    """A file (one shard) and the one that was made again."""

    path: str
    sha256: str
    reproduced: str | None
    same: bool


@dataclass(frozen=True, kw_only=True)
class ReproduceResult(Result):
    """`quantcli reproduce`. ``exact``: nothing was recomputed that depends on the machine (statistics, importance).
    ``problem``: why the bytes are not the same.
    """

    schema: int
    same: bool
    exact: bool
    options: str
    made_by: str
    ingredients: list[Ingredient]
    files: list[ReproducedFile]
    problem: str | None
    seconds: float
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class CardFile(Result):
    """A model that a card lists. ``kld``: mean over all texts; ``publish``: no smaller file is closer to the source."""

    file: str
    type: str
    files: int
    bytes: int
    bpw: float
    sha256: str | None
    kld: float | None
    recommended: bool
    publish: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class CardResult(Result):
    """`quantcli card`."""

    schema: int
    output: str
    picture: str | None
    files: list[CardFile]


@dataclass(frozen=True, kw_only=True)
class StepResult(Result):
    """A step of a release. ``state``: "done" now, "kept" from before, "planned" of a dry run, or "skipped"."""

    step: str
    subject: str
    state: str
    detail: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReleaseFile(Result):
    """A file of a release; what a dry run does not know is None."""

    path: str
    type: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class ReleaseResult(Result):
    """`quantcli release`. ``disk``: bytes that it takes in all, ``free``: those that are free there;
    ``estimate``: seconds of encoding, from a probe of every type.
    """

    schema: int
    dry_run: bool
    output: str
    source: str
    steps: list[StepResult]
    files: list[ReleaseFile]
    card: list[CardFile]
    disk: int
    free: int
    estimate: float
    uploaded: str | None
    seconds: float
