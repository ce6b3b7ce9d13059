"""The methods, one row each, and which of them encodes a matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from quantcli.errors import UsageError
from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import hqq, plain, weighted
from quantcli.methods.seam import Matrix, Method, RowEncoder, Settings, Statistics
from quantcli.model import ModelTensor

DEFAULT = "weighted"  # where there is importance; else its fallback

_WEIGHTED = frozenset(row.name for row in tensor_types.BY_NAME.values() if row.importance != "ignored")

# fmt: off
_ROWS = [
    #      name        prepare           needs         types      fallback  cost  purpose
    Method("plain",    plain.prepare,    "nothing",    None,      None,     "1",  "the scale search, columns alike"),
    Method("weighted", weighted.prepare, "importance", _WEIGHTED, "plain",  "1",  "the scale search by importance"),
    Method("hqq",      hqq.prepare,      "nothing",    hqq.TYPES, "weighted", "?", "lower sum of |error|^(3/4)"),
]
# fmt: on

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class Choice:
    """A method by name, with its settings. Without a name: the search, weighted where there is importance.

    Raises UsageError for a name that the table lacks.
    """

    name: str | None = None
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in METHODS:
            hint = f"known: {', '.join(METHODS)}"
            raise UsageError(f"there is no method {self.name!r}", where="--method", hint=hint)

    def method(self, matrix: Matrix, tensor_type: TensorType, statistics: Statistics) -> Method:
        """The method that encodes this matrix: the chosen one, or the first of its fallbacks that takes it."""
        row = METHODS[self.name or DEFAULT]
        while row.fallback is not None and not row.takes(matrix, tensor_type, statistics):
            row = METHODS[row.fallback]
        return row

    def prepare(self, matrix: Matrix, tensor_type: TensorType, statistics: Statistics) -> RowEncoder:
        """An encoder of the matrix's rows."""
        return self.method(matrix, tensor_type, statistics).prepare(matrix, tensor_type, statistics, self.settings)

    def fallbacks(
        self, planned: Iterable[tuple[ModelTensor, TensorType]], statistics: Statistics
    ) -> Counter[tuple[str, str]]:
        """(type, method that takes over) -> number of tensors that the named method does not take.

        Floats and copies are nobody's; without a named method nothing was asked for.
        """
        found: Counter[tuple[str, str]] = Counter()
        for tensor, tensor_type in planned:
            if self.name is None or not tensor_type.quantized or (tensor.raw and tensor_type is tensor.stored):
                continue
            used = self.method(Matrix.of(tensor), tensor_type, statistics).name
            if used != self.name:
                found[tensor_type.name, used] += 1
        return found
