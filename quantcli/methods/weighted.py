"""The importance-weighted search: as the plain one, with one weight per column on the squared errors."""

from __future__ import annotations

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.plain import search_for
from quantcli.methods.seam import Blocks, Matrix, RowEncoder, Rows, Settings, Statistics


def prepare(matrix: Matrix, tensor_type: TensorType, statistics: Statistics, settings: Settings) -> RowEncoder:
    """An encoder of rows that weighs errors with the matrix's importance."""
    search = search_for(tensor_type, settings.search)
    weights = statistics.importance(matrix)

    def encode(rows: Rows, start: int, out: Blocks) -> Blocks:
        return kernels.encode(tensor_type.id, rows, weights, search=search, out=out)

    return encode
