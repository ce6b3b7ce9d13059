"""What is known to differ from the oracles, and why: the rows of ``tests/families/differences.tsv``.

``kind`` says what differs: a metadata ``entry``, the bytes of a ``tensor`` (by the end of its name), the ``ids`` of
texts with a part, or the ``logits``, where ``what`` is the largest difference over the standard deviation, "other"
where the record is of another computation than llama.cpp's, which the runner follows, "scaled" where a factor lies
between them. A row that is not needed any more fails a test.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).parents[1] / "families" / "differences.tsv"


class Difference(NamedTuple):
    """One row; ``checkpoint`` is the folder's name, whatever pack it lies in."""

    checkpoint: str
    kind: str
    what: str
    reason: str


@cache
def rows() -> tuple[Difference, ...]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(Difference(*row) for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:])


def of(checkpoint: str, kind: str) -> tuple[Difference, ...]:
    """The rows of one kind; ``checkpoint`` may stand below its pack ("arch-more/xverse")."""
    return tuple(row for row in rows() if (row.checkpoint, row.kind) == (checkpoint.split("/")[-1], kind))


def parts(checkpoint: str, kind: str) -> tuple[str, ...]:
    """What differs: keys, ends of names, parts of texts, bounds."""
    return tuple(row.what for row in of(checkpoint, kind))


def tolerance(checkpoint: str, usual: float) -> float | None:
    """Largest difference of logits over their spread; None where the record is of another computation."""
    bound = next(iter(parts(checkpoint, "logits")), "scaled")
    return None if bound == "other" else usual if bound == "scaled" else float(bound)
