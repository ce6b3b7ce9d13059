"""The statuses that the kernels return (csrc/quantcli.h, runner.h), and the error that each is."""

from __future__ import annotations

from typing import Protocol

from quantcli.errors import BadImportance, NoKernel, NonFiniteWeight, QuantcliError, ScaleOverflow, ShapeMismatch
from quantcli.ggml import tensor_types

OK, NON_FINITE, OVERFLOW, NO_KERNEL, NO_MEMORY, BAD_IMPORTANCE, BAD_ROUNDING, BAD_BLOCK, BAD_SIZE = range(9)

# class, message, hint by status; {0} is the type, {1} what is too large, {2} its limit, {3} types without that limit
_FAILURES: dict[int, tuple[type[QuantcliError], str, str]] = {
    NON_FINITE: (
        NonFiniteWeight,
        "a weight is NaN or infinite",
        "the checkpoint is damaged, or was saved in F16 after an overflow",
    ),
    OVERFLOW: (
        ScaleOverflow,
        "too large for {0}: a {1} exceeds the range of {2}",
        "use {3} for this tensor (--tensor-type)",
    ),
    BAD_IMPORTANCE: (
        BadImportance,
        "importance that is negative, NaN or infinite",
        "collect the importance matrix again",
    ),
    NO_KERNEL: (
        NoKernel,
        "this build cannot encode or decode {0} this way",
        "`quantcli formats` shows what it can",
    ),
    NO_MEMORY: (QuantcliError, "out of memory in a kernel", "use fewer --threads"),
    BAD_ROUNDING: (
        QuantcliError,
        "the floating-point unit is not in its standard mode (rounding, denormals)",
        "some library in this process changed it, often one built with -ffast-math",
    ),
    BAD_SIZE: (ShapeMismatch, "a kernel of the runner was given less memory than it needs", "please report this"),
    BAD_BLOCK: (NonFiniteWeight, "a scale of the given {0} blocks is NaN or infinite", "fit the blocks again"),
}


class Place(Protocol):
    """A qc_place of the library."""

    row: int
    column: int


def failure(status: int, type_id: int, place: Place | None) -> QuantcliError:
    """The error for a status other than OK of a kernel of this type, with row and column where a place is given."""
    tensor_type = tensor_types.BY_ID[type_id]
    value = "scale" if tensor_type.quantized else "weight"
    limit, instead = ("BF16", "F32") if tensor_type.name == "BF16" else ("half precision", "BF16 or F32")
    kind, message, hint = _FAILURES[status]
    words = tensor_type.name, value, limit, instead
    error = kind(message.format(*words), hint=hint.format(*words))
    if place is not None:
        error.row, error.column = int(place.row), int(place.column)
    return error
