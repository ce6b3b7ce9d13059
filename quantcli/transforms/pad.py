"""Feed-forward layers made wider by neurons that do nothing, so that rows fit blocks of 256.

A row of ``ffn_down`` has as many weights as the layer has neurons; k- and IQ types need a multiple of 256. Neurons with
zero weights in and out add exactly nothing, and llama.cpp reads the width from the metadata like any other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy
from numpy.typing import NDArray

from quantcli.architectures import find
from quantcli.container import Value, array
from quantcli.errors import UnsupportedTransform
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.methods.seam import matrix_count
from quantcli.model import Model, ModelTensor, RowReader

BLOCK = 256
Floats = NDArray[numpy.float32]

#: suffix of the matrices' names -> the metadata key that holds their width, the first that is there
WIDTHS = {
    "": ("feed_forward_length",),
    "_exps": ("expert_feed_forward_length", "feed_forward_length"),
    "_shexp": ("expert_shared_feed_forward_length",),
}


class _Padded:
    """Rows of a tensor with zeros behind its columns and between its rows. A `model.RowReader`.

    ``groups``: the rows are that many runs of equal length, each of which is made as long as ``rows`` says.
    """

    def __init__(self, tensor: ModelTensor, columns: int, groups: int, rows: int) -> None:
        self._source, self._known, self._columns = tensor.reader, tensor.columns, columns
        self._length, self._rows = tensor.rows // groups, rows

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        values = numpy.empty((stop - start, self._columns), numpy.float32) if out is None else out
        values[:] = 0
        for group in range(start // self._rows, -(-stop // self._rows)):
            first = group * self._rows
            low, high = max(start - first, 0), min(stop - first, self._length)
            if low < high:
                base = group * self._length
                read = self._source.read_rows(base + low, base + high)
                values[first + low - start : first + high - start, : self._known] = read
        return values

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        raise NotImplementedError("padded tensors are read as numbers")


def apply(model: Model) -> Model:
    """The model with every feed-forward width a multiple of 256. Raises UnsupportedTransform, UnknownArchitecture."""
    graph = find(model.architecture).graph
    if graph is None:
        raise UnsupportedTransform(
            f"the layers of architecture {model.architecture} are not known",
            where="--transform pad",
            hint="leave the option out",
        )
    metadata = dict(model.metadata)
    tensors = {tensor.name: tensor for tensor in model.tensors}
    for suffix, keys in WIDTHS.items():
        downs = [name for name in tensors if name.endswith(f".ffn_down{suffix}.weight")]
        wider = {name: -(-tensors[name].columns // BLOCK) * BLOCK for name in downs}
        if all(width == tensors[name].columns for name, width in wider.items()):
            continue
        key = next((key for key in keys if f"{model.architecture}.{key}" in metadata), None)
        if key is None:
            raise UnsupportedTransform(
                f"the metadata has no {model.architecture}.{keys[0]}: the width follows from others",
                where="--transform pad",
                hint="leave the option out",
            )
        entry = model.metadata[f"{model.architecture}.{key}"]
        halves = 2 if graph.mlp == "fused" and suffix == "" else 1
        for name, width in wider.items():
            _pad_layer(tensors, name, suffix, width, halves)
        metadata[f"{model.architecture}.{key}"] = _wider(entry)
    return replace(model, metadata=metadata, tensors=[tensors[tensor.name] for tensor in model.tensors])


def _pad_layer(tensors: dict[str, ModelTensor], down: str, suffix: str, width: int, halves: int) -> None:
    """Replace the matrices (and biases) of one layer. ``halves``: of the rows of ffn_up, gate and up in one."""
    prefix = down[: -len(f"ffn_down{suffix}.weight")]
    matrices = matrix_count(tensors[down])
    tensors[down] = _padded(tensors[down], width, matrices, tensors[down].rows // matrices)
    for role in ("gate", "up"):
        weight = tensors.get(f"{prefix}ffn_{role}{suffix}.weight")
        if weight is not None:
            tensors[weight.name] = _padded(weight, weight.columns, halves * matrices, width)
        bias = tensors.get(f"{prefix}ffn_{role}{suffix}.bias")
        if bias is not None and halves == 1:
            tensors[bias.name] = _padded(bias, width, 1, bias.rows)


def _padded(tensor: ModelTensor, columns: int, groups: int, rows: int) -> ModelTensor:
    """``groups`` runs of rows made ``rows`` long, and rows made ``columns`` long."""
    shape = list(tensor.shape)
    shape[0] = columns
    if len(shape) > 1:
        shape[1] = rows * groups // matrix_count(tensor)
    reader: RowReader = _Padded(tensor.decoded or tensor, columns, groups, rows)
    return replace(tensor, shape=tuple(shape), stored=BY_NAME["F32"], raw=False, reader=reader, decoded=None)


def _wider(entry: Value) -> Value:
    """A width, or one per layer, as the next multiple of 256."""
    widths = (numpy.asarray(entry.data) + BLOCK - 1) // BLOCK * BLOCK
    if entry.element is not None:
        return array(entry.element, widths.tolist())
    return replace(entry, data=int(widths))
