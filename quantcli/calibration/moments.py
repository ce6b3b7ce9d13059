"""Second moments of a matrix's inputs, summed up batch by batch: what compensation minimises with.

A matrix W [m, n] reads ``a`` in the model and ``b`` where everything before it is quantized already; ``r`` and ``r~``
are the residual streams that its output is added to. Products of a batch in float32 (numpy's BLAS, whose threads do
not depend on ours), sums of batches in float64 and in their order, so that one machine gives one result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from quantcli.methods.coupling import coupled
from quantcli.runner.arrays import Doubles, Floats


@dataclass
class Moments:
    """Sums over ``tokens`` tokens: H of b b^T [n, n], C of (a - b) b^T [n, n], R of (r - r~) b^T [m, n].

    C and R are None where they are not wanted. A matrix with fewer rows than columns has W C as a part of R instead.
    ``weight``: the sum of what the tokens count (token_weights.py), 1 each for most matrices.
    """

    hessian: Doubles
    cross: Doubles | None = None
    residual: Doubles | None = None
    tokens: int = 0
    weight: float = 0.0

    @classmethod
    def zero(cls, columns: int, *, cross: bool, residual_rows: int | None = None) -> Moments:
        """Nothing seen yet."""
        return cls(
            numpy.zeros((columns, columns)),
            numpy.zeros((columns, columns)) if cross else None,
            numpy.zeros((residual_rows, columns)) if residual_rows is not None else None,
        )

    def add(
        self, b: Floats, a: Floats | None = None, residual: Floats | None = None, weights: Floats | None = None
    ) -> None:
        """A batch: ``b``, ``a`` [tokens, n], ``residual`` = r - r~ [tokens, m]; what is not summed may be None.

        ``weights`` [tokens], not negative: what each counts.
        """
        difference = None if self.cross is None or a is None else a - b
        if weights is not None:
            root = numpy.sqrt(weights)[:, None]
            b = b * root
            difference, residual = (None if one is None else one * root for one in (difference, residual))
        self.hessian += b.T @ b
        if self.cross is not None and difference is not None:
            self.cross += difference.T @ b
        if self.residual is not None and residual is not None:
            self.residual += residual.T @ b
        self.tokens += len(b)
        self.weight += len(b) if weights is None else float(weights.sum(dtype=numpy.float64))

    def mean_hessian(self) -> Doubles:
        """H, the mean over tokens."""
        return self.hessian / (self.weight or 1.0)

    def pull(self, weights: Floats) -> Doubles:
        """W C + R, the mean over tokens, float64 [m, n]: how W's inputs and stream fall short of the model's."""
        result = numpy.zeros(weights.shape)
        if self.cross is not None:
            result += weights.astype(numpy.float64) @ self.cross
        if self.residual is not None:
            result += self.residual
        return result / (self.weight or 1.0)


def excess(error: Floats, hessian: Doubles, pull: Doubles, information: NDArray[numpy.floating] | None = None) -> float:
    """By how much Q = W + ``error`` misses what W gives in the model: E|(W a + r) - (Q b + r~)|^2 less a constant.

    ``hessian``, ``pull``: of the tokens that are to judge. Q = W gives 0; a compensated Q may be below. With
    ``information`` A [parts, rows of a part, ...] (coupling.py) it is the square that A makes of the outputs' errors.
    """
    wide = error.astype(numpy.float64)
    slope = wide @ hessian - 2 * pull
    return float(((slope if information is None else coupled(information, slope)) * wide).sum())
