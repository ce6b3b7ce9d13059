"""The ggml tensor types, one row each: id, block, bytes, what llama-quantize falls back to, whether importance matters.

Sizes and ids are those of ggml (type ids are part of the GGUF format). ``importance`` is the rule of llama.cpp's
quantizer: ``ignored`` (the encoder does not use it), ``used`` (better with), ``required`` (refused without, except for
embeddings and the output tensor). ``fallback`` is the type that takes over when a row is no multiple of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from quantcli.errors import IndivisibleRow, UnknownType


@dataclass(frozen=True, slots=True, eq=False)
class TensorType:
    """One ggml tensor type. ``block`` weights take ``bytes`` bytes."""

    name: str
    id: int
    block: int
    bytes: int
    kind: str  # "float", "integer", "legacy", "k", "codebook", "ternary", "microscaling", "activation"
    importance: str  # "ignored", "used", "required"
    fallback: str | None
    purpose: str

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.bytes / self.block

    @property
    def quantized(self) -> bool:
        return self.kind not in ("float", "integer")

    def __reduce__(self) -> tuple[Callable[[str], TensorType], tuple[str]]:
        """In another process it is that process's row again: types are compared by identity."""
        return by_name, (self.name,)


# fmt: off
_TYPES = [
    #          name      id block bytes kind        importance fallback purpose
    TensorType("F32",     0,   1,   4, "float",       "ignored", None,    "norms, biases, reference"),
    TensorType("F16",     1,   1,   2, "float",       "ignored", None,    "half precision, 65504 at most"),
    TensorType("Q4_0",    2,  32,  18, "legacy",      "used",    None,    "4-bit, scale per 32; fastest on small CPUs"),
    TensorType("Q4_1",    3,  32,  20, "legacy",      "used",    None,    "4-bit, scale and minimum per 32"),
    TensorType("Q5_0",    6,  32,  22, "legacy",      "used",    None,    "5-bit, scale per 32"),
    TensorType("Q5_1",    7,  32,  24, "legacy",      "used",    None,    "5-bit, scale and minimum per 32"),
    TensorType("Q8_0",    8,  32,  34, "legacy",      "ignored", None,    "8-bit, scale per 32; nearly lossless"),
    TensorType("Q8_1",    9,  32,  36, "activation",  "ignored", None,    "activations only"),
    TensorType("Q2_K",   10, 256,  84, "k",           "used",    "Q4_0",  "2-bit, 16 scaled groups of 16"),
    TensorType("Q3_K",   11, 256, 110, "k",           "used",    "Q4_0",  "3-bit, 16 scaled groups of 16"),
    TensorType("Q4_K",   12, 256, 144, "k",           "used",    "Q5_0",  "4-bit, 8 groups of 32; the usual choice"),
    TensorType("Q5_K",   13, 256, 176, "k",           "used",    "Q5_1",  "5-bit, 8 groups of 32"),
    TensorType("Q6_K",   14, 256, 210, "k",           "used",    "Q8_0",  "6-bit, 16 groups of 16"),
    TensorType("Q8_K",   15, 256, 292, "activation",  "ignored", None,    "activations only"),
    TensorType("IQ2_XXS",16, 256,  66, "codebook",    "required","IQ4_NL","2.06 bits, 256 vectors of 8"),
    TensorType("IQ2_XS", 17, 256,  74, "codebook",    "required","IQ4_NL","2.31 bits, 512 vectors of 8"),
    TensorType("IQ3_XXS",18, 256,  98, "codebook",    "required","IQ4_NL","3.06 bits, 256 vectors of 4"),
    TensorType("IQ1_S",  19, 256,  50, "codebook",    "required","IQ4_NL","1.56 bits, 2048 ternary vectors of 8"),
    TensorType("IQ4_NL", 20,  32,  18, "codebook",    "used",    None,    "4-bit, 16 uneven levels, scale per 32"),
    TensorType("IQ3_S",  21, 256, 110, "codebook",    "used",    "IQ4_NL","3.44 bits, 512 vectors of 4"),
    TensorType("IQ2_S",  22, 256,  82, "codebook",    "required","IQ4_NL","2.56 bits, 1024 vectors of 8"),
    TensorType("IQ4_XS", 23, 256, 136, "codebook",    "used",    "IQ4_NL","4.25 bits, uneven levels, 8 groups of 32"),
    TensorType("I8",     24,   1,   1, "integer",     "ignored", None,    "plain integers"),
    TensorType("I16",    25,   1,   2, "integer",     "ignored", None,    "plain integers"),
    TensorType("I32",    26,   1,   4, "integer",     "ignored", None,    "plain integers"),
    TensorType("I64",    27,   1,   8, "integer",     "ignored", None,    "plain integers"),
    TensorType("F64",    28,   1,   8, "float",       "ignored", None,    "double precision, sources only"),
    TensorType("IQ1_M",  29, 256,  56, "codebook",    "required","IQ4_NL","1.75 bits, 2048 ternary vectors of 8"),
    TensorType("BF16",   30,   1,   2, "float",       "ignored", None,    "what most checkpoints store"),
    TensorType("TQ1_0",  34, 256,  54, "ternary",     "ignored", "Q4_0",  "ternary, 1.69 bits; for ternary models"),
    TensorType("TQ2_0",  35, 256,  66, "ternary",     "ignored", "Q4_0",  "ternary, 2.06 bits; for ternary models"),
    TensorType("MXFP4",  39,  32,  17, "microscaling","used",    None,    "4-bit floats, power-of-two scale per 32"),
    TensorType("NVFP4",  40,  64,  36, "microscaling","used",    None,    "4-bit floats, 8-bit float scale per 16"),
    TensorType("Q1_0",   41, 128,  18, "legacy",      "ignored", None,    "signs and one scale per 128"),
    TensorType("Q2_0",   42,  64,  18, "legacy",      "ignored", "Q4_0",  "2-bit, scale per 64"),
]
# fmt: on

BY_NAME: dict[str, TensorType] = {tensor_type.name: tensor_type for tensor_type in _TYPES}
BY_ID: dict[int, TensorType] = {tensor_type.id: tensor_type for tensor_type in _TYPES}


def by_name(name: str) -> TensorType:
    """The type called ``name``, in any case (``q4_K``, ``Q4_K``). Raises UnknownType."""
    tensor_type = BY_NAME.get(name.upper())
    if tensor_type is None:
        raise UnknownType(f"there is no tensor type {name!r}", hint="`quantcli formats` lists the types")
    return tensor_type


def row_bytes(tensor_type: TensorType, columns: int) -> int:
    """Bytes of one row of ``columns`` weights. Raises IndivisibleRow."""
    if columns % tensor_type.block:
        raise IndivisibleRow(f"{columns} columns are no multiple of {tensor_type.name}'s block of {tensor_type.block}")
    return columns // tensor_type.block * tensor_type.bytes


def tensor_bytes(tensor_type: TensorType, shape: Sequence[int]) -> int:
    """Bytes of a tensor of GGUF ``shape`` (columns first)."""
    return row_bytes(tensor_type, shape[0]) * prod(shape[1:])
