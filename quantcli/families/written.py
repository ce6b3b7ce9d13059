"""The types of tensors that no recipe speaks of: those of projectors and adapters are llama.cpp's converter's."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.architectures.fixed import stays_float32
from quantcli.ggml.tensor_types import BY_NAME, TensorType

FILE_TYPES = ("F32", "F16", "BF16", "Q8_0")  # what projectors and adapters are written as


def types_of(
    name: str,
    shape: tuple[int, ...],
    own: str | None = None,
    half_or_single: tuple[str, ...] = (),
    factors: tuple[str, ...] = (),
) -> Mapping[str, TensorType]:
    """The type of a tensor (shape in GGUF order) in every file type. Rows that a block does not divide fall back later.

    ``own``: a type that it has in all of them. ``half_or_single``: parts of names that are F16 in files of this type
    and F32 in all others. ``factors``: endings of names that have the file's type whatever the rest says. Vectors are
    F32 in any case.
    """
    half = any(part in name for part in half_or_single)
    found = {}
    for target in FILE_TYPES:
        if len(shape) < 2:
            chosen = "F32"
        elif own is not None:
            chosen = own
        elif half:
            chosen = "F16" if target == "F16" else "F32"
        else:
            single = not name.endswith(factors) and stays_float32(name, len(shape))
            chosen = "F32" if single else target
        found[target] = BY_NAME[chosen]
    return found
