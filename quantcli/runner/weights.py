"""A model's tensors in memory: matrices as their stored blocks, everything else as float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy

from quantcli.errors import NoKernel, ShapeMismatch
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor
from quantcli.runner.arrays import Bytes, Floats, Tokens
from quantcli.runner.pages import room
from quantcli.runner.shapes import missing

READ_BYTES = 16 << 20  # rows are read in pieces of about this many bytes


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """``matrices`` matrices of ``rows`` x ``columns`` (one, or one per expert) as packed blocks.

    ``data``: uint8 [matrices, rows, bytes per row]. A product with it is ``x [tokens, columns] -> y [tokens, rows]``.
    ``bias``: float32 [matrices, rows] or None.
    """

    name: str
    type: TensorType
    matrices: int
    rows: int
    columns: int
    data: Bytes
    bias: Floats | None = None

    def decode(self, start: int = 0, stop: int | None = None, matrix: int = 0, out: Floats | None = None) -> Floats:
        """Rows ``start`` to ``stop`` of one matrix as float32 [stop - start, columns], into ``out`` if given."""
        part = self.data[matrix, start:stop]
        return kernels.decode(self.type.id, part, len(part), self.columns, out=out)

    def take(self, rows: Tokens) -> Floats:
        """The given rows (any order, repeats allowed) as float32 [len(rows), columns]."""
        part = numpy.ascontiguousarray(self.data[0, rows])
        return kernels.decode(self.type.id, part, len(part), self.columns)


class Packed(NamedTuple):
    """Contents of a tensor in memory: ``data`` uint8 [rows of all its matrices, bytes per row], blocks of ``type``."""

    type: TensorType
    data: Bytes

    @classmethod
    def of(cls, values: Floats) -> Packed:
        """Plain numbers, float32 [..., columns]."""
        flat = numpy.ascontiguousarray(values, numpy.float32).reshape(-1, values.shape[-1])
        return cls(tensor_types.BY_NAME["F32"], flat.view(numpy.uint8))


def holding(tensor: ModelTensor, contents: Packed) -> ModelTensor:
    """The tensor with other contents of the same shape. Raises ShapeMismatch."""
    expected = (tensor.rows, tensor_types.row_bytes(contents.type, tensor.columns))
    if contents.data.shape != expected or contents.data.dtype != numpy.uint8:
        raise ShapeMismatch(
            f"contents of {contents.data.shape} bytes, {contents.type.name} needs {expected}", where=tensor.origin
        )
    reader = _Held(Packed(contents.type, numpy.ascontiguousarray(contents.data)), tensor.columns)
    return replace(tensor, type=contents.type, stored=contents.type, raw=True, reader=reader)


class _Held:
    """Reads the rows of contents in memory."""

    def __init__(self, contents: Packed, columns: int) -> None:
        self.contents, self.columns = contents, columns

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        part = self.contents.data[start:stop]
        return kernels.decode(self.contents.type.id, part, len(part), self.columns, out=out)

    def read_raw(self, start: int, stop: int) -> memoryview:
        return self.contents.data[start:stop].data.cast("B")


class Weights:
    """Tensors by GGUF name, read when first asked for and kept until `release`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tensors = {tensor.name: tensor for tensor in model.tensors}
        self._matrices: dict[str, PackedMatrix] = {}
        self._vectors: dict[str, Floats] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def replacing(self, contents: Mapping[str, Packed]) -> Weights:
        """These weights with other contents of the tensors named; whatever else is in memory is shared.

        Raises MissingTensors, ShapeMismatch.
        """
        result = Weights(self.model)
        result.tensors = {**self.tensors, **{name: holding(self._find(name), one) for name, one in contents.items()}}
        prefixes = {name.rpartition(".")[0] for name in contents}  # a matrix is held with its bias
        result._matrices = {name: held for name, held in self._matrices.items() if name not in prefixes}
        result._vectors = {name: held for name, held in self._vectors.items() if name not in contents}
        return result

    @property
    def held_bytes(self) -> int:
        """Bytes of the tensors in memory."""
        return sum(m.data.nbytes for m in self._matrices.values()) + sum(v.nbytes for v in self._vectors.values())

    def matrix(
        self, name: str, columns: int, rows: int | None = None, matrices: int = 1, *, with_bias: bool = True
    ) -> PackedMatrix:
        """``<name>.weight`` with ``<name>.bias`` where there is one; its shape must be the given one.

        Raises MissingTensors, ShapeMismatch, NoKernel, and what reading raises.
        """
        found = self._matrices.get(name)
        if found is None:
            tensor = self._find(f"{name}.weight")
            count = _checked_rows(tensor, columns, rows, matrices)
            tensor_type, data = packed(tensor)
            bias = (
                self.vector(f"{name}.bias").reshape(matrices, count) if with_bias and f"{name}.bias" in self else None
            )
            found = PackedMatrix(
                tensor.name, tensor_type, matrices, count, columns, data.reshape(matrices, count, -1), bias
            )
            self._matrices[name] = found
        return found

    def vector(self, name: str, shape: tuple[int, ...] | None = None) -> Floats:
        """A whole tensor as float32 in numpy order (GGUF's reversed); of ``shape`` where given."""
        found = self._vectors.get(name)
        if found is None:
            tensor = self._find(name)
            found = tensor.reader.read_rows(0, tensor.rows).reshape(tuple(reversed(tensor.shape)))
            self._vectors[name] = found
        if shape is not None and found.shape != shape:
            if found.size != numpy.prod(shape):
                raise ShapeMismatch(f"{found.shape}, the metadata wants {shape}", where=self.tensors[name].origin)
            found = found.reshape(shape)
        return found

    def columns(self, name: str) -> int:
        """Columns of ``<name>.weight``. Raises MissingTensors."""
        return self._find(f"{name}.weight").columns

    def rows(self, name: str) -> int:
        """Rows of (each matrix of) ``<name>.weight``. Raises MissingTensors."""
        return (*self._find(f"{name}.weight").shape, 1)[1]

    def release(self, prefix: str) -> None:
        """Forget the tensors whose names begin with ``prefix``; they are read again when needed."""
        for held in (self._matrices, self._vectors):
            for name in [name for name in held if name.startswith(prefix)]:
                del held[name]

    def _find(self, name: str) -> ModelTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise missing(name, self.model.name)
        return tensor


def _checked_rows(tensor: ModelTensor, columns: int, rows: int | None, matrices: int) -> int:
    """How many rows each of its matrices has. Raises ShapeMismatch where it is not what the metadata says."""
    shape = (*tensor.shape, 1, 1)[:3]
    if shape[0] != columns or shape[2] != matrices or (rows or shape[1]) != shape[1] or len(tensor.shape) > 3:
        expected = " x ".join(str(n) for n in (columns, rows or "any", matrices)[: 3 if matrices > 1 else 2])
        raise ShapeMismatch(
            f"{' x '.join(map(str, tensor.shape))}, the metadata wants {expected}",
            where=tensor.origin,
            hint="the file contradicts itself: get it again",
        )
    return shape[1]


def packed(tensor: ModelTensor) -> Packed:
    """A matrix as its stored blocks, unchanged where possible, else in the narrowest exact float type."""
    if not kernels.can_decode(tensor.stored.id):
        raise NoKernel(
            f"this build cannot decode {tensor.stored.name}",
            where=tensor.origin,
            hint="`quantcli formats` shows the types",
        )
    as_stored = tensor.raw or tensor.stored.name in ("F16", "BF16")
    tensor_type = tensor.stored if as_stored else tensor_types.BY_NAME["F32"]
    width = tensor_types.row_bytes(tensor_type, tensor.columns)
    data = room(tensor.rows, width)
    step = max(1, READ_BYTES // max(width, 1))
    for start in range(0, tensor.rows, step):
        stop = min(start + step, tensor.rows)
        if tensor.raw:
            data[start:stop] = numpy.frombuffer(tensor.reader.read_raw(start, stop), numpy.uint8).reshape(-1, width)
        elif not _narrowed(tensor, tensor_type, start, stop, data[start:stop]):
            return Packed.of(tensor.reader.read_rows(0, tensor.rows))
    return Packed(tensor_type, data)


def _narrowed(tensor: ModelTensor, tensor_type: TensorType, start: int, stop: int, out: Bytes) -> bool:
    """Encode transformed rows in their stored float type; False where a transform made numbers that do not fit."""
    rows = tensor.reader.read_rows(start, stop)
    kernels.encode(tensor_type.id, rows, out=out)
    return tensor_type.name == "F32" or numpy.array_equal(kernels.decode(tensor_type.id, out, *rows.shape), rows)
