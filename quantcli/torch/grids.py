"""Matrices on the grids of GGUF types as PyTorch sees them: rounding with a straight-through gradient.

The gradient of a rounded value is passed on as if nothing had been rounded (Bengio and others 2013, arXiv 1308.3432).
Blocks are made and read by the same kernels as in a conversion, so that what is trained with is what a file holds.
"""

from __future__ import annotations

from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from quantcli.errors import IndivisibleRow, NoKernel, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType

# Where a block holds its halves: the scale of all its weights, then that of its minima (csrc/blocks.h). Types that are
# not here have no scale that is one fp16 number: theirs stay what they are.
HALVES: dict[str, tuple[int, ...]] = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ1_S": (0,),
    "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip
# Types whose codes are evenly spaced: a code may move up or down by itself.
EVEN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_FREEDOM = 0.45  # of a level: how far from its code a weight may start


class _Rounded(torch.autograd.Function):
    """``rounded`` forward, the gradient of ``weight`` backward."""

    @staticmethod
    def forward(context: Any, weight: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def fake_quantize(
    weight: Tensor, type_name: str, *, search: str = "best", importance: NDArray[numpy.float32] | None = None
) -> Tensor:
    """What a file of type ``type_name`` would hold of ``weight`` [..., columns]; the gradient is passed on unchanged.

    ``search``: "best" or "ggml", as in a conversion; ``importance``: float32 [columns], weights of squared errors. The
    result has dtype and device of ``weight``; it is computed on the CPU in float32. Raises UsageError for an unknown
    type, NoKernel, IndivisibleRow, NonFiniteWeight, BadImportance.
    """
    found = find_type(type_name)
    columns = weight.shape[-1]
    _check_columns(found, columns)
    if not kernels.can_encode(found.id, search):
        search = "ggml"
    rows = numpy.ascontiguousarray(weight.detach().to("cpu", torch.float32).numpy().reshape(-1, columns))
    blocks = kernels.encode(found.id, rows, importance, search=search)
    decoded = torch.from_numpy(kernels.decode(found.id, blocks, len(rows), columns).reshape(weight.shape))
    result: Tensor = _Rounded.apply(weight, decoded.to(weight.device, weight.dtype))
    return result


def find_type(name: str) -> TensorType:
    """The type of this name. Raises UsageError, NoKernel."""
    found = tensor_types.BY_NAME.get(name.upper())
    if found is None:
        raise UsageError(f"there is no type {name!r}", hint="`quantcli formats` lists them")
    if not kernels.can_encode(found.id) or not found.quantized:
        raise NoKernel(f"{found.name} is no type that weights are quantized to", where=found.name)
    return found


def _check_columns(found: TensorType, columns: int) -> None:
    if columns % found.block:
        raise IndivisibleRow(f"{columns} columns are no multiple of {found.name}'s block of {found.block}")


class GridMatrix(torch.nn.Module):
    """A matrix of blocks whose scales, and where they are even its codes, can be tuned.

    Parameters: ``scales`` [rows, blocks], how much the blocks' scales grow, ``minima`` likewise where the type has
    them, and with ``codes`` a latent [rows, columns] in units of levels, whose nearest whole number is the code.
    """

    def __init__(
        self,
        type_name: str,
        blocks: NDArray[numpy.uint8],
        columns: int,
        weight: Tensor | None = None,
        *,
        codes: bool = True,
    ) -> None:
        """``blocks``: uint8 [rows, bytes per row]. ``weight``: float32 [rows, columns], what they were made from: the
        latent starts at its place between two codes.
        """
        super().__init__()
        self.type, self.columns = find_type(type_name), columns
        _check_columns(self.type, columns)
        layout = kernels.layout(self.type.id)
        assert layout is not None
        self.layout, self.given = layout, numpy.ascontiguousarray(blocks)
        rows = len(blocks)
        scale, minimum = map(torch.from_numpy, kernels.parameters(self.type.id, self.given, rows, columns))
        decoded = torch.from_numpy(kernels.decode(self.type.id, self.given, rows, columns))
        wide_scale, wide_minimum = self._wide(scale), self._wide(minimum)
        used = torch.where(wide_scale == 0, torch.ones(()), wide_scale)
        level = torch.where(wide_scale == 0, torch.zeros(()), (decoded - wide_minimum) / used)
        halves, per_row = HALVES.get(self.type.name, ()), columns // self.type.block
        self.even = self.type.name in EVEN
        level = level.round() if self.even else level
        self.register_buffer("scale", scale)
        self.register_buffer("minimum", minimum)
        self.register_buffer("level", level)
        self.scales = torch.nn.Parameter(torch.zeros(rows, per_row), requires_grad=bool(halves))
        self.minima = torch.nn.Parameter(torch.zeros(rows, per_row), requires_grad=len(halves) == 2)
        moved = torch.zeros(rows, columns) if weight is None else (weight - decoded) / used
        self.latent: torch.nn.Parameter | None = None
        if codes and self.even:
            self.latent = torch.nn.Parameter(level + moved.clamp(-_FREEDOM, _FREEDOM))

    def _wide(self, of_sub_blocks: Tensor) -> Tensor:
        return of_sub_blocks.repeat_interleave(self.layout.sub_block, dim=1)

    def _grown(self, change: Tensor, values: Tensor) -> Tensor:
        """``values`` of the sub-blocks, each block's times 1 + ``change``."""
        return values * (1 + change.repeat_interleave(self.type.block // self.layout.sub_block, dim=1))

    def codes(self) -> Tensor:
        """Whole numbers [rows, columns] between the type's lowest and highest; of uneven types levels."""
        if self.latent is None:
            return self.level
        return self.latent.detach().round().clamp(self.layout.low, self.layout.high)

    def forward(self) -> Tensor:
        """The weights [rows, columns], float32, on the grid up to the rounding of the scales to fp16."""
        code = self.codes()
        if self.latent is not None:
            code = _Rounded.apply(self.latent, code)
        weights = self._wide(self._grown(self.scales, self.scale)) * code
        return weights + self._wide(self._grown(self.minima, self.minimum)) if self.layout.minima else weights

    @torch.no_grad()
    def blocks(self) -> NDArray[numpy.uint8]:
        """The blocks of what was tuned, uint8 [rows, bytes per row]."""
        rows, made = len(self.given), self.given.copy()
        view = made.reshape(rows, -1, self.type.bytes)
        for offset, change in zip(HALVES.get(self.type.name, ()), (self.scales, self.minima), strict=False):
            stored = numpy.ascontiguousarray(view[:, :, offset : offset + 2]).view(numpy.float16)[..., 0]
            grown = stored.astype(numpy.float32) * (1 + change.cpu().numpy())
            kept = numpy.isfinite(grown) & (abs(grown) < numpy.finfo(numpy.float16).max)
            half = numpy.where(kept, grown, stored).astype(numpy.float16)
            view[:, :, offset : offset + 2] = half[..., None].view(numpy.uint8)
        if self.latent is None:
            return made
        scale, minimum = map(torch.from_numpy, kernels.parameters(self.type.id, made, rows, self.columns))
        values = self._wide(scale) * self.codes().cpu() + self._wide(minimum)
        return kernels.assign(self.type.id, numpy.ascontiguousarray(values.numpy()), made)
