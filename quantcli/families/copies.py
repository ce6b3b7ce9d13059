"""Whether a tensor is stored twice: shared embeddings under several names, a head that repeats them."""

from __future__ import annotations

import numpy

from quantcli.sources.tensor import SourceTensor

_SLAB = 1 << 20  # elements that are compared at once


def is_copy(tensor: SourceTensor, original: SourceTensor) -> bool:
    """Whether both hold the same values, whatever their dtypes. Reads until the first difference, slab by slab."""
    if tensor.shape != original.shape or tensor.type is None or original.type is None:
        return False
    ours, theirs = tensor.reader(), original.reader()
    step = max(1, _SLAB // max(1, ours.columns))
    for start in range(0, ours.rows, step):
        stop = min(start + step, ours.rows)
        if not numpy.array_equal(ours.read_rows(start, stop), theirs.read_rows(start, stop), equal_nan=True):
            return False
    return True
