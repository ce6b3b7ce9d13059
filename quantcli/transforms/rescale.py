"""Factors on channels: put into the columns of what reads a vector, taken out of what makes it.

Which tensors these are is said by `architectures.topology`.
A model with `Factors` applied computes the same function; in float32 its numbers differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy
from numpy.typing import NDArray

from quantcli.architectures.topology import Feed
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.methods.seam import matrix_count
from quantcli.model import Model, ModelTensor, RowReader

Floats = NDArray[numpy.float32]


@dataclass(frozen=True)
class Factors:
    """What a tensor is multiplied by: ``rows`` float32 [rows of all its matrices], ``columns`` [matrices, columns]."""

    rows: Floats | None = None
    columns: Floats | None = None

    def times(self, other: Factors) -> Factors:
        """Both, one after the other."""
        return Factors(_product(self.rows, other.rows), _product(self.columns, other.columns))


def _product(one: Floats | None, other: Floats | None) -> Floats | None:
    if one is None or other is None:
        return other if one is None else one
    return one * other


class _Rescaled:
    """A tensor's rows with its factors. A `model.RowReader`."""

    def __init__(self, tensor: ModelTensor, factors: Factors) -> None:
        self._source, self._factors, self._rows = tensor.reader, factors, tensor.rows

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        values = self._source.read_rows(start, stop, out)
        if self._factors.rows is not None:
            values *= self._factors.rows[start:stop, None]
        if self._factors.columns is not None:
            each = self._rows // len(self._factors.columns)
            values *= self._factors.columns[numpy.arange(start, stop) // each]
        return values

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        raise NotImplementedError("rescaled tensors are read as numbers")


def apply(model: Model, factors: Mapping[str, Factors]) -> Model:
    """The model with the tensors named in ``factors`` multiplied. Shares the source's files with ``model``."""
    tensors = []
    for tensor in model.tensors:
        found = factors.get(tensor.name)
        if found is not None:
            reader: RowReader = _Rescaled(tensor.decoded or tensor, found)
            tensor = replace(tensor, stored=BY_NAME["F32"], raw=False, reader=reader, decoded=None)
        tensors.append(tensor)
    return replace(model, tensors=tensors)


# ---- one feed


@dataclass(frozen=True)
class Heads:
    """Query heads, key/value heads and the width of a value: how attention leads from value rows to output columns."""

    heads: int
    kv_heads: int
    value: int


def shared(values: NDArray[numpy.float64], feed: Feed, heads: Heads) -> NDArray[numpy.float64]:
    """Positive numbers [..., columns] made equal (geometric mean) where columns come from one channel of the source."""
    if feed.through != "attention":
        return values
    shape = (*values.shape[:-1], heads.kv_heads, heads.heads // heads.kv_heads, heads.value)
    mean = numpy.exp(numpy.log(values.reshape(shape)).mean(axis=-2, keepdims=True))
    return numpy.broadcast_to(mean, shape).reshape(values.shape)


def factors_of(
    feed: Feed, prefix: str, scale: Floats, tensors: Mapping[str, ModelTensor], heads: Heads
) -> dict[str, Factors]:
    """Factors by tensor name that multiply the columns of the feed's matrices by ``scale`` and its source by 1 / scale.

    ``scale``: float32 [matrices, columns], equal where `shared` makes it so; one row where matrices share their input.
    """
    found = {}
    for role in feed.matrices:
        name = f"{prefix}{role}.weight"
        found[name] = Factors(columns=numpy.broadcast_to(scale, (matrix_count(tensors[name]), scale.shape[1])))
    inverse = _inverse(feed, scale, heads)
    for suffix in ("weight", "bias"):
        tensor = tensors.get(f"{prefix}{feed.source}.{suffix}")
        if tensor is None:
            continue
        if feed.through == "norm" or suffix == "bias":
            found[tensor.name] = Factors(columns=_behind(inverse, tensor.columns))
        else:
            found[tensor.name] = Factors(rows=_behind(inverse, tensor.rows // len(inverse)).reshape(-1))
    return found


def _inverse(feed: Feed, scale: Floats, heads: Heads) -> Floats:
    """1 / scale per channel of the source, [matrices, channels]."""
    if feed.through == "attention":
        scale = scale.reshape(len(scale), heads.kv_heads, -1, heads.value)[:, :, 0].reshape(len(scale), -1)
    return (1 / scale.astype(numpy.float64)).astype(numpy.float32)


def _behind(inverse: Floats, length: int) -> Floats:
    """The factors of the last channels of ``length``; those before (queries, keys, gates of one tensor) stay."""
    result = numpy.ones((len(inverse), length), numpy.float32)
    result[:, length - inverse.shape[1] :] = inverse
    return result
