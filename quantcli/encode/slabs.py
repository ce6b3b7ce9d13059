"""Tensors cut into slabs: rows of one matrix, few enough to stay in a cache while every output is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantcli.methods.seam import matrix_rows
from quantcli.model import ModelTensor

SLAB_WEIGHTS = 1 << 19  # 2 MiB of float32: stays in the caches of a core's share while every output is encoded
SLAB_ROWS = 16  # slabs are multiples, as far as a matrix goes: kernels take this many rows side by side


@dataclass(slots=True, eq=False, repr=False)
class Slab:
    """Rows ``start`` to ``stop`` of a tensor, all of one matrix (expert) ``matrix``; ``last``: the tensor's last."""

    group: int  # of the model among those of the run
    index: int  # of the tensor in the writing order
    tensor: ModelTensor
    matrix: int
    start: int
    stop: int
    last: bool


def slabs(tensors: Sequence[ModelTensor], group: int = 0) -> Iterator[Slab]:
    """Cut the tensors of one model, in order, into slabs of about SLAB_WEIGHTS weights."""
    for index, tensor in enumerate(tensors):
        total = tensor.rows
        per_matrix = matrix_rows(tensor)
        step = max(SLAB_WEIGHTS // max(tensor.columns, 1) // SLAB_ROWS, 1) * SLAB_ROWS
        for matrix, base in enumerate(range(0, total, max(per_matrix, 1))):
            end = min(base + per_matrix, total)
            for start in range(base, end, step):
                stop = min(start + step, end)
                yield Slab(group, index, tensor, matrix, start, stop, stop == total)
