"""GGUF tensors from blocks that a checkpoint stores as they are (MXFP4, NVFP4): copied, or decoded for other types."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from quantcli.families.bind import Bound
from quantcli.families.transforms import Node
from quantcli.ggml import tensor_types
from quantcli.model import ModelTensor

_F32 = tensor_types.BY_NAME["F32"]
_ONE = 1e-6  # as near to 1 a factor is not written


def nodes(one: Bound, build: Callable[[bool], Node]) -> tuple[Node, Node | None]:
    """The rows of a tensor, and their values where the rows are blocks that mean them.

    ``build(exact)`` makes the rows from what is stored, or from the values of blocks. Where a transform has decoded
    what is stored, the values are the rows.
    """
    from quantcli.views import Decoded

    node = build(False)
    if node.reader.stored.quantized:
        values = build(True)
        if values.reader.stored.quantized:  # the blocks alone say all
            values = Node(values.shape, Decoded(values.reader))
        return node, values
    apart = any(part.exact is not None for part in one.parts.values())
    return (build(True) if apart else node), None


def beside(tensor: ModelTensor, one: Bound) -> list[ModelTensor]:
    """The tensors ``X.scale`` and ``X.input_scale`` that belong to copied blocks; a factor of 1 is left out."""
    if not tensor.stored.quantized:
        return []
    parts = [part.factors for _, part in sorted(one.parts.items())]
    stem = tensor.name.removesuffix(".weight")
    found = []
    for name, values in (("scale", [p.weights for p in parts]), ("input_scale", [p.inputs for p in parts])):
        if not numpy.allclose(values, 1.0, atol=_ONE, rtol=0 if len(values) == 1 else 1e-5):
            found.append(_vector(f"{stem}.{name}", values, tensor))
    return found


def wide_inputs(tensor: ModelTensor, one: Bound) -> bool:
    """Whether inputs of copied blocks are not to be rounded to 4 bits."""
    return tensor.stored.quantized and all(part.factors.wide for part in one.parts.values())


def _vector(name: str, values: list[float], owner: ModelTensor) -> ModelTensor:
    from quantcli.views import Generated

    shape = (len(values),)
    return ModelTensor(name, shape, _F32, _F32, True, Generated(values), owner.origin, owner.shard, beside=owner.name)
