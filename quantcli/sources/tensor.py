"""What a source gives: tensors that can be read by rows, whether they lie in a file so or have to be unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy
from numpy.typing import NDArray

from quantcli.ggml.tensor_types import TensorType
from quantcli.sources.factors import NO_FACTORS, Factors
from quantcli.sources.files import SourceFile, StoredTensor
from quantcli.views import Reader


class SourceTensor(Protocol):
    """One tensor of a checkpoint as everything behind the sources sees it.

    ``shape`` is in torch order; rows are those of [product of the leading dimensions, last dimension]. ``type`` is the
    tensor type of the bytes that ``reader`` gives, None for a ``dtype`` that has none. ``origin`` and ``where`` name
    the tensor in messages; ``file`` is the file that holds it (its codes, where it is packed).
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    @property
    def type(self) -> TensorType | None: ...

    @property
    def file(self) -> SourceFile: ...

    @property
    def origin(self) -> str: ...

    @property
    def where(self) -> str: ...

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32, into ``out`` if given."""
        ...

    def reader(self) -> Reader:
        """The lazy view of all rows that transforms are put around."""
        ...

    @property
    def exact(self) -> Reader | None:
        """The values of the same rows where ``reader`` gives blocks that are copied and mean them; None elsewhere."""
        ...

    @property
    def factors(self) -> Factors:
        """What belongs to such blocks."""
        ...


@dataclass(slots=True, eq=False, repr=False)
class LogicalTensor:
    """A tensor that is made from several packed ones: ``view`` puts them together, ``codes`` is the first of them.

    ``shape`` is that of the unpacked tensor (torch order). In messages it goes by the name of its codes, which is the
    one that a user finds in the file. ``exact``: where ``view`` gives blocks of a tensor type, what they mean.
    """

    name: str
    shape: tuple[int, ...]
    view: Reader
    codes: StoredTensor
    exact: Reader | None = None
    factors: Factors = NO_FACTORS

    @property
    def type(self) -> TensorType:
        return self.view.stored

    @property
    def dtype(self) -> str:
        return self.view.stored.name

    @property
    def file(self) -> SourceFile:
        return self.codes.file

    @property
    def origin(self) -> str:
        return self.codes.origin

    @property
    def where(self) -> str:
        return self.codes.where

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes of rows ``start`` to ``stop`` in ``type``; only where ``view.raw`` is true."""
        return self.view.read_raw(start, stop)

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32."""
        return self.view.read_rows(start, stop, out)

    def reader(self) -> Reader:
        return self.view
