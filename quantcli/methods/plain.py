"""The plain search: every block by itself, all weights alike, through the kernels' scale search."""

from __future__ import annotations

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.seam import Blocks, Matrix, RowEncoder, Rows, Settings, Statistics

DEFAULT_SEARCH = "best"


def prepare(matrix: Matrix, tensor_type: TensorType, statistics: Statistics, settings: Settings) -> RowEncoder:
    """An encoder of rows that looks at nothing but the rows."""
    search = search_for(tensor_type, settings.search)

    def encode(rows: Rows, start: int, out: Blocks) -> Blocks:
        return kernels.encode(tensor_type.id, rows, search=search, out=out)

    return encode


def search_for(tensor_type: TensorType, asked: str | None) -> str:
    """The search that is used for a type: what was asked for, where the type has it; else ggml's."""
    wanted = asked or DEFAULT_SEARCH
    return wanted if kernels.can_encode(tensor_type.id, wanted) else "ggml"
