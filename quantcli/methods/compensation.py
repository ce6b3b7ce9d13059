"""Compensation: codes and scales that lower the error of a matrix's outputs, tr(E H E^T), not that of its weights.

H is the second moment of the matrix's inputs. An error in one column can be made up for in the columns whose inputs go
with it, so blocks are searched with all of H: GPTQ (Frantar and others, 2022) in the order of the diagonal, on the
scales of the plain search; then coordinate descent on the codes and least squares for scales and minima in turn
(csrc/encode/compensate.inc), from several starts. Rows are independent: slabs and threads do not change a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.ggml import compensate, kernels
from quantcli.ggml.compensate import Effort
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.plain import search_for

Floats: TypeAlias = NDArray[numpy.float32]
Doubles: TypeAlias = NDArray[numpy.float64]
Bytes: TypeAlias = NDArray[numpy.uint8]


@dataclass(frozen=True)
class Work:
    """How much is tried. ``powers`` of diag(H), as importance in the search of the first scales: where one start ends
    is chance, of several the best is kept. ``further``: what that gets then; a row keeps what it has where a step ends
    higher."""

    powers: tuple[float, ...]
    further: tuple[Effort, ...]


_ON = Effort(gptq=False, polish=False, rounds=2, sweeps=2, recode=True)
_ANEW = Effort(gptq=True, polish=True, rounds=2, sweeps=2, recode=True)
THOROUGH = Work((1.0, 0.5, 0.0), (_ON, _ANEW, _ANEW))
QUICK = Work((1.0,), (_ON, _ANEW))

LEAST_DIAGONAL = 1e-8  # of the mean


@dataclass(frozen=True)
class Metric:
    """A damped Hessian of one matrix's inputs as the encoders use it.

    ``hessian`` float32 (n, n): symmetric, damped. ``order`` int32 (n,): the columns from the largest diagonal entry to
    the smallest, stable. ``factor`` float32 (n, n): A, strictly upper, with H[order][:, order] = (I + A) D (I + A)^T.
    ``damping``: the share of the diagonal that was really used. Where columns are coded in groups, these follow each
    other in ``order`` by the sums of their diagonal entries, D has blocks, ``pivots`` float32 (n / group, group,
    group), and A is zero in them. Without groups there are no pivots: no encoder needs them.
    """

    hessian: Floats
    order: NDArray[numpy.int32]
    factor: Floats
    damping: float
    pivots: Floats | None = None

    @classmethod
    def of(cls, hessian: Doubles, *, damping: float = 0.01, group: int = 1) -> Metric:
        """The metric of second moments ``hessian`` float64 (n, n): (1 - damping) H + damping diag(H).

        Entries of the diagonal below 1e-8 of its mean are raised to that. Where the matrix is singular all the same,
        the damping grows tenfold until it is not. ``group``: columns that are coded together (``columns_together``).
        Raises ValueError for a matrix that is not square, not finite or that has a negative diagonal.
        """
        moments = _checked(hessian, group)
        share = damping
        while True:
            damped = _damped(moments, share)
            order = _order(damped, group)
            root = triangle(damped[order][:, order])
            if root is not None:
                break
            share = min(max(share * 10, 1e-3), 1.0)
        factor, pivots = _factor(root) if group == 1 else _factor_of_groups(root, group)
        return cls(damped.astype(numpy.float32), order, factor, share, pivots)

    @cached_property
    def permuted(self) -> Floats:
        """``hessian`` with rows and columns in ``order``."""
        return numpy.ascontiguousarray(self.hessian[numpy.ix_(self.order, self.order)])

    @cached_property
    def importance(self) -> Floats:
        """The diagonal of the Hessian: float32 (n,), for the search of the first scales."""
        return numpy.ascontiguousarray(self.hessian.diagonal())

    @cached_property
    def native(self) -> compensate.Metric:
        """The arrays as the kernels take them."""
        pivots = numpy.zeros((len(self.order), 1, 1), numpy.float32) if self.pivots is None else self.pivots
        return compensate.Metric(
            self.hessian, self.permuted, numpy.ascontiguousarray(self.factor.T), pivots, self.order
        )


def encode(
    tensor_type: TensorType,
    target: Floats,
    metric: Metric,
    work: Work = THOROUGH,
    *,
    isa: str | None = None,
) -> Bytes:
    """Blocks uint8 (m, bytes of a row) that lower tr((W - Q) H (W - Q)^T) for the rows W = ``target`` float32 (m, n).

    The plain search with one importance or several; from each, with GPTQ on its scales and with its own codes, a
    polish, a refit of the scales and a polish. Of every row the blocks that lose least go on: refits that look for
    scales with other codes too, and from there GPTQ anew on the scales that were found. The bytes depend on nothing
    but rows, metric and ``work``. Raises NonFiniteWeight and ScaleOverflow with ``row`` and ``column``, NoKernel for a
    type that ``takes`` refuses, ValueError for a metric of other columns or groups.
    """
    found, least = None, numpy.full(len(target), numpy.inf, numpy.float32)
    for power in work.powers if tensor_type.importance != "ignored" else work.powers[:1]:
        start = plain(tensor_type, target, metric, power=power, isa=isa)
        for gptq in (True, False):
            blocks = start.copy()
            effort = Effort(gptq, polish=True, rounds=1, sweeps=1)
            _, losses = improve(tensor_type, target, blocks, metric, effort, isa=isa)
            better = losses < least
            found = blocks if found is None else numpy.where(better[:, None], blocks, found)
            least = numpy.where(better, losses, least)
    assert found is not None
    for effort in work.further:
        improve(tensor_type, target, found, metric, effort, isa=isa)
    return found


def plain(
    tensor_type: TensorType, target: Floats, metric: Metric, *, power: float = 1.0, isa: str | None = None
) -> Bytes:
    """The blocks with which ``encode`` begins: the plain search with the importance diag(H)^``power``, 1, 1/2 or 0."""
    importance = {1.0: metric.importance, 0.5: numpy.sqrt(metric.importance), 0.0: None}[power]
    return kernels.encode(tensor_type.id, target, importance, search=search_for(tensor_type, None), isa=isa)


def improve(
    tensor_type: TensorType,
    target: Floats,
    blocks: Bytes,
    metric: Metric,
    effort: Effort = Effort(),  # noqa: B008 (immutable)
    *,
    isa: str | None = None,
) -> tuple[int, Floats]:
    """Replace the ``blocks`` of ``target`` by better ones.

    Returns how many rows kept theirs, and each row's loss, float32 (m,). Raises as ``encode``.
    """
    return compensate.compensate(tensor_type.id, target, blocks, metric.native, effort, isa=isa)


def columns_together(tensor_type: TensorType) -> int:
    """``group`` of the metric that the type needs: 1, or 8 for codebook types; 0: it has no compensating encoder."""
    return compensate.columns_together(tensor_type.id)


def takes(tensor_type: TensorType) -> bool:
    """Whether there is a compensating encoder for the type."""
    return columns_together(tensor_type) > 0


def loss(tensor_type: TensorType, target: Floats, blocks: Bytes, metric: Metric) -> Doubles:
    """e H e^T of the error e of every row: float64 (m,)."""
    errors = target.astype(numpy.float64) - kernels.decode(tensor_type.id, blocks, *target.shape)
    found: Doubles = numpy.einsum("ij,ij->i", errors @ metric.hessian.astype(numpy.float64), errors)
    return found


# ---- the metric ------------------------------------------------------------------------------------------------


def _checked(hessian: Doubles, group: int) -> Doubles:
    moments = numpy.asarray(hessian, numpy.float64)
    if moments.ndim != 2 or moments.shape[0] != moments.shape[1] or moments.shape[0] % group:
        raise ValueError(f"a Hessian is square, its columns a multiple of {group}; this is {moments.shape}")
    if not numpy.isfinite(moments).all() or (moments.diagonal() < 0).any():
        raise ValueError("a Hessian is finite and has no negative diagonal")
    return moments


def _damped(moments: Doubles, share: float) -> Doubles:
    damped = moments * (1 - share)
    diagonal = moments.diagonal()
    least = LEAST_DIAGONAL * float(diagonal.mean()) or 1.0  # all zero: every column alike
    numpy.fill_diagonal(damped, numpy.maximum(diagonal, least))
    return damped


def _order(damped: Doubles, group: int) -> NDArray[numpy.int32]:
    """Columns by falling diagonal; of groups, by the sum of theirs."""
    size = damped.diagonal().reshape(-1, group).sum(axis=1)
    groups = numpy.argsort(-size, kind="stable")
    return (groups[:, None] * group + numpy.arange(group)).reshape(-1).astype(numpy.int32)


def triangle(matrix: Doubles) -> Doubles | None:
    """U, upper, with U U^T = matrix; None where the matrix is not positive definite."""
    try:
        lower: Doubles = numpy.linalg.cholesky(matrix[::-1, ::-1]).astype(numpy.float64, copy=False)
    except numpy.linalg.LinAlgError:
        return None
    upper = lower[::-1, ::-1]
    return upper if (upper.diagonal() > 0).all() and numpy.isfinite(upper).all() else None


def _factor(triangle: Doubles) -> tuple[Floats, None]:
    """A of U = (A + I) sqrt(D), in Fortran order, for the kernels read its columns."""
    factor = (triangle / triangle.diagonal()).astype(numpy.float32, order="F")
    numpy.fill_diagonal(factor, 0)
    return factor, None


def _factor_of_groups(triangle: Doubles, group: int) -> tuple[Floats, Floats]:
    """A and D, both of blocks; A in Fortran order."""
    count = len(triangle) // group
    blocks = triangle.reshape(count, group, count, group)
    roots = blocks[numpy.arange(count), :, numpy.arange(count)]  # (count, group, group): upper triangles
    columns = blocks.transpose(2, 0, 1, 3).reshape(count, -1, group) @ numpy.linalg.inv(roots)
    factor = columns.transpose(0, 2, 1).reshape(len(triangle), len(triangle)).astype(numpy.float32)  # transposed
    diagonal = factor.reshape(count, group, count, group)
    diagonal[numpy.arange(count), :, numpy.arange(count)] = 0
    return factor.T, (roots @ roots.transpose(0, 2, 1)).astype(numpy.float32)
