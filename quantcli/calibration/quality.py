"""How much work a conversion does for its quality: named sets of a method, transforms and calibration text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from quantcli.errors import UsageError


class Quality(NamedTuple):
    """A row of the table.

    ``tokens``: of real text at most, ``sampled``: those that the model writes.
    """

    name: str
    method: str | None  # of those that compensate; None: the search alone
    transforms: tuple[str, ...]
    tokens: int
    sampled: int
    purpose: str


# fmt: off
_ROWS = [
    #       name    method        transforms  tokens   sampled  purpose
    Quality("fast", None,         (),         0,       0,       "the search alone"),
    Quality("good", "gptq",       ("awq",),   32_768,  65_536,  "AWQ and GPTQ, one pass"),
    Quality("best", "sequential", ("awq",),   65_536,  196_608, "AWQ; every matrix for its encoded inputs"),
]
# fmt: on

DEFAULT = "fast"
QUALITIES = {row.name: row for row in _ROWS}
PAD = "pad"  # changes shapes before anything is planned: no part of a pass
TRANSFORMS = ("awq", "smoothquant", "equalize")  # see merging.py


class Compensating(NamedTuple):
    """A method that compensates. ``alpha``: how far a matrix makes up for those before it, None where nothing is known
    of them; ``thorough``: what the encoder tries; ``gradients``: tokens that gradients are taken of."""

    alpha: float | None
    thorough: bool
    gradients: int


GRADIENT_TOKENS = 24_576  # for a plan
COMPENSATING = {
    "gptq": Compensating(alpha=None, thorough=False, gradients=8192),
    "sequential": Compensating(alpha=0.5, thorough=True, gradients=49_152),
}


def gradient_tokens(method: str | None) -> int:
    """Tokens that gradients are taken of, at most; ``method`` None: for a plan."""
    return GRADIENT_TOKENS if method is None else COMPENSATING[method].gradients


@dataclass(frozen=True, repr=False)
class Wish:
    """What a conversion shall do beside the search. ``method`` None: only the transforms.

    ``texts``: the user's; ``tokens``: of real text at most; ``sampled``: tokens that the model writes.
    """

    quality: str
    method: str | None
    transforms: tuple[str, ...]
    texts: tuple[Path, ...]
    tokens: int
    sampled: int
    named: bool = False  # the transforms were asked for by name: a model that knows none is an error
    statistics: Path | None = None  # a folder of an earlier run
    keep: Path | None = None  # the folder that keeps what this run finds

    @property
    def encodes(self) -> bool:
        """Whether it changes what is written; else it is for a plan alone."""
        return self.method is not None or bool(self.transforms)


class Used(NamedTuple):
    """What was calibrated with: real and sampled tokens, and the sha256 of the real ones' ids."""

    real: int
    sampled: int
    corpus: str


PLANNING_TOKENS = 49_152  # of text, where nothing but a plan asks for it

UNKNOWN = Used(0, 0, "0" * 64)  # before the work: takes as many bytes in a file


def wish(
    quality: str | None,
    method: str | None,
    transforms: Sequence[str],
    texts: Sequence[Path],
    sampled: int | None,
    statistics: Path | None = None,
    keep: Path | None = None,
) -> Wish | None:
    """A quality with what is named instead of its parts; None for the search alone.

    ``method``: a compensating one, any other ("" here), or None where none was named. Raises UsageError.
    """
    row = parse(quality or DEFAULT)
    used = row.method if method is None else (method if method in COMPENSATING else None)
    if used is None and not transforms and not row.transforms:
        given = {
            "--calibration": texts,
            "--sampled-tokens": sampled,
            "--statistics": statistics,
            "--keep-statistics": keep,
        }
        for option, value in given.items():
            if value:
                raise UsageError(
                    f"{option} is for methods that calibrate",
                    hint="add --quality good or best; `quantcli imatrix` collects importance from a text",
                )
        return None
    tokens = row.tokens or QUALITIES["best" if used == "sequential" else "good"].tokens
    return Wish(
        row.name,
        used,
        tuple(transforms) or row.transforms,
        tuple(texts),
        tokens,
        row.sampled if sampled is None else sampled,
        bool(transforms),
        statistics,
        keep,
    )


def planning(
    texts: Sequence[Path], sampled: int | None, statistics: Path | None = None, keep: Path | None = None
) -> Wish:
    """What a plan alone needs of a calibration."""
    return Wish(
        DEFAULT, None, (), tuple(texts), PLANNING_TOKENS, sampled or 0, named=False, statistics=statistics, keep=keep
    )


def parse(name: str) -> Quality:
    """The row of this name. Raises UsageError."""
    if name not in QUALITIES:
        raise UsageError(f"there is no quality {name!r}", where="--quality", hint=f"known: {', '.join(QUALITIES)}")
    return QUALITIES[name]
