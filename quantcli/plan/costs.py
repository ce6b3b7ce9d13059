"""What it costs to encode: ns of one core per weight, by type. All machines divide work by this one table.

Measured by scripts/measure_costs.py (AMD EPYC, 2026-11-30; processor time): means of AVX2 and AVX-512, which differ by
up to 1.7x (IQ4_XS; IQ2_XS 1.6x). Machines differ, also in the ratios, but parts of a conversion must be the same
everywhere; `estimating` measures the machine at hand for what it says of time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate

from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor

# fmt: off
NANOSECONDS = {
    "F32": 0.17, "F16": 0.16, "BF16": 0.18,
    "Q4_0": 2.01, "Q4_1": 5.79, "Q5_0": 1.77, "Q5_1": 3.85, "Q8_0": 0.33,
    "Q2_K": 5.68, "Q3_K": 2.81, "Q4_K": 5.53, "Q5_K": 5.35, "Q6_K": 2.06,
    "IQ1_S": 5.75, "IQ1_M": 5.33, "IQ2_XXS": 9.22, "IQ2_XS": 13.81, "IQ2_S": 6.31,
    "IQ3_XXS": 12.52, "IQ3_S": 9.09, "IQ4_NL": 4.21, "IQ4_XS": 4.21,
    "TQ1_0": 0.36, "TQ2_0": 0.32, "MXFP4": 1.56, "NVFP4": 2.65, "Q1_0": 0.27, "Q2_0": 0.32,
}
# fmt: on
USUAL = 10.0  # of a type that is not in the table
COPIED = 0.6  # of a weight that is only read, hashed and written
HASHED = 0.7  # ns of a byte of the source that is read from the system's cache and hashed
PICO = 1000  # costs are whole numbers, so that sums are the same everywhere


def nanoseconds(tensor: ModelTensor, tensor_type: TensorType) -> float:
    """ns of one core per weight of ``tensor`` as ``tensor_type``."""
    if tensor.raw and tensor_type is tensor.stored:
        return COPIED
    return COPIED + NANOSECONDS.get(tensor_type.name, USUAL)


def share_done(work: Iterable[tuple[int, int]]) -> Callable[[int], float]:
    """How much of the work is done, 0 to 1, by the bytes of the source that are done; ``work``: (bytes, cost) of the
    tensors in their order. Types differ by a hundred times: bytes alone tell little of the time that is left."""
    known = list(work) or [(0, 0)]
    sizes = [size for size, _ in known]
    ends, done = list(accumulate(sizes)), [0, *accumulate(cost for _, cost in known)]
    total = max(done[-1], 1)

    def share(count: int) -> float:
        place = min(bisect_right(ends, count), len(ends) - 1)
        begin = ends[place] - sizes[place]
        inside = min(max((count - begin) / max(sizes[place], 1), 0.0), 1.0)
        return (done[place] + inside * (done[place + 1] - done[place])) / total

    return share


def cost(tensor: ModelTensor, tensor_type: TensorType) -> int:
    """The whole tensor, in picoseconds of one core."""
    return round(PICO * nanoseconds(tensor, tensor_type)) * tensor.columns * tensor.rows


def hashing(models: Iterable[Model]) -> int:
    """The sha256 of what the models' tensors are read from, in picoseconds of one core."""
    tensors = (tensor for model in models for tensor in model.tensors)
    return round(PICO * HASHED) * sum(tensor_types.tensor_bytes(one.stored, one.shape) for one in tensors)
