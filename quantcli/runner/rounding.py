"""Activations as llama.cpp's CPU products see them: rounded to the partner type of the weights.

The reference in numpy, for one product after another; blocks are ggml's: Q8_0 (32, scale of the largest
magnitude in half precision), Q8_1 (the same), Q8_K (256, scale in float32), F16 and BF16 element by element.
What is left out: Q8_1 keeps a half-precision sum of its block for the weights' minimum (relative error 5e-4 of a small
term), and sums are taken in float32 instead of integers.
"""

from __future__ import annotations

import numpy

from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.runner.arrays import Floats

# The type that ggml's CPU backend converts activations to, per type of the weights; K and codebook types take Q8_K.
PARTNERS = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "Q4_0": "Q8_0",
    "Q4_1": "Q8_1",
    "Q5_0": "Q8_0",
    "Q5_1": "Q8_1",
    "Q8_0": "Q8_0",
    "IQ4_NL": "Q8_0",
    "MXFP4": "Q8_0",
    "NVFP4": "Q8_0",
    "Q1_0": "Q8_0",
    "Q2_0": "Q8_0",
}
CODES = {"q8": 127, "int16": 32767}  # int16: per block of 32, with a float32 scale


def partner(tensor_type: TensorType) -> str:
    """The name of the type that activations are rounded to beside weights of ``tensor_type``."""
    return PARTNERS.get(tensor_type.name, "Q8_K")


def rounded(x: Floats, tensor_type: TensorType, activations: str) -> Floats:
    """``x`` [..., columns] as the product with weights of ``tensor_type`` sees it, float32.

    ``activations``: "float" (unchanged), "q8" (the partner's rounding), "int16" (15 bits and sign per 32 elements).
    """
    name = partner(tensor_type)
    if activations == "float" or name == "F32":
        return x
    if name in ("F16", "BF16"):
        return x if activations == "int16" else _narrowed(x, name)
    if activations == "int16":
        return _blocks(x, 32, CODES["int16"], half=False)
    return _super_blocks(x) if name == "Q8_K" else _blocks(x, 32, CODES["q8"], half=True)


def _narrowed(x: Floats, name: str) -> Floats:
    flat = numpy.ascontiguousarray(x).reshape(1, -1)
    type_id = tensor_types.BY_NAME[name].id
    return kernels.decode(type_id, kernels.encode(type_id, flat), *flat.shape).reshape(x.shape)


def _blocks(x: Floats, size: int, most: int, *, half: bool) -> Floats:
    """Codes of -``most`` to ``most`` per block; the scale is stored in half precision where ``half``."""
    blocks = x.reshape(-1, size)
    largest = numpy.abs(blocks).max(axis=1, keepdims=True)
    scale = largest / numpy.float32(most)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        inverse = numpy.where(largest > 0, numpy.float32(most) / largest, numpy.float32(0))
    codes: Floats = numpy.rint(blocks * inverse)
    stored = scale.astype(numpy.float16).astype(numpy.float32) if half else scale
    codes *= stored
    return codes.reshape(x.shape)


def _super_blocks(x: Floats) -> Floats:
    """Q8_K: the element of largest magnitude (the first of equals) becomes code -127."""
    blocks = x.reshape(-1, 256)
    extreme = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(axis=1)[:, None], axis=1)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        inverse = numpy.where(extreme != 0, numpy.float32(-127) / extreme, numpy.float32(0))
        scale = numpy.where(extreme != 0, 1 / inverse, numpy.float32(0))
    codes: Floats = numpy.minimum(numpy.rint(blocks * inverse), numpy.float32(127))
    codes *= scale
    return codes.reshape(x.shape)
