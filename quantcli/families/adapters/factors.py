"""An adapter's module as a product left @ right in the shape of the base's matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.sources import factors as beside
from quantcli.sources.adapter import Module
from quantcli.sources.files import SourceFile
from quantcli.views import Reader


@dataclass(frozen=True, slots=True)
class Factors:
    """``left`` [rows, rank] @ ``right`` [rank, columns]: what a module adds to the matrix ``name``, without its scale.

    Looks like a tensor of the base to those who bind names (`SourceTensor`); its elements are read through the factors.
    """

    name: str
    module: Module
    left: Reader
    right: Reader

    @property
    def shape(self) -> tuple[int, ...]:
        return self.left.rows, self.right.columns

    @property
    def dtype(self) -> str:
        return self.module.a.dtype

    @property
    def type(self) -> TensorType | None:
        return BY_NAME["F32"] if self.module.a.type and self.module.b.type else None

    @property
    def file(self) -> SourceFile:
        return self.module.a.file

    @property
    def origin(self) -> str:
        return self.module.a.origin

    @property
    def where(self) -> str:
        return self.module.a.where

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        raise NotImplementedError("the product is not computed")

    def reader(self) -> Reader:
        raise NotImplementedError("the product is not computed")

    @property
    def exact(self) -> None:
        """What is read is what is meant."""

    @property
    def factors(self) -> beside.Factors:
        return beside.NO_FACTORS


def factors_of(module: Module, transposed: bool) -> Factors:
    """B @ A; for embeddings, and for weights stored as [inputs, outputs] (``transposed``), its transpose."""
    from quantcli.views import transpose

    left: Reader = module.b.reader()
    right: Reader = module.a.reader()
    if module.embedding or transposed:
        left, right = transpose(right), transpose(left)
    return Factors(f"{module.name}.weight", module, left, right)
