"""What scale searches minimise: sum w (x - decoded)^2, with the weights of ours or those of ggml.

Ours, of every type: w = q, the importance, or 1 without. ggml's: one row per type, (block of the mean square, factor of
it, weights without importance). With importance the weight is q sqrt(sigma2 + x^2), sigma2 = factor * mean of x^2 over
the block (ROW: over the whole row), or q alone (factor None). Without importance: one of PLAIN. Formulas: ggml's
quantizers, as recorded in the golden block bytes' description.
"""

from __future__ import annotations

import numpy

ROW = 0  # instead of a block: the whole row


def means(x: numpy.ndarray, block: int) -> numpy.ndarray:
    """Mean of x^2 over blocks of columns, one value per weight. x: float64 [rows, columns]."""
    rows, columns = x.shape
    block = block or columns
    means = (x * x).reshape(rows, columns // block, block).mean(axis=2)
    return means.repeat(block, axis=1)


#: weights without importance, of x and sigma2
PLAIN = {
    "one": lambda x, sigma2: numpy.ones_like(x),
    "square": lambda x, sigma2: x * x,
    "absolute": lambda x, sigma2: abs(x),
    "rms32 + absolute": lambda x, sigma2: numpy.sqrt(means(x, 32)) + abs(x),
    "sigma2 / 4 + square": lambda x, sigma2: 0.25 * sigma2 + x * x,
    "root": lambda x, sigma2: numpy.sqrt(sigma2 + x * x),  # ours: ggml refuses these types
}

#: type -> (block, factor, weights without importance)
OBJECTIVES: dict[str, tuple[int, float | None, str]] = {
    "Q4_0": (ROW, 1.0, "one"),
    "Q4_1": (ROW, 1.0, "one"),
    "Q5_0": (ROW, 1.0, "one"),
    "Q5_1": (ROW, 1.0, "one"),
    "Q2_K": (256, 1.0, "absolute"),
    "Q3_K": (256, 2.0, "square"),
    "Q4_K": (256, 2.0, "rms32 + absolute"),
    "Q5_K": (256, 2.0, "rms32 + absolute"),
    "Q6_K": (256, None, "square"),
    "IQ1_S": (256, 2.0, "root"),
    "IQ1_M": (256, 2.0, "square"),
    "IQ2_XXS": (256, 1.0, "root"),
    "IQ2_XS": (256, 1.0, "root"),
    "IQ2_S": (256, 2.0, "sigma2 / 4 + square"),
    "IQ3_XXS": (256, 2.0, "square"),
    "IQ3_S": (256, 2.0, "square"),
    "IQ4_NL": (32, 2.0, "square"),
    "IQ4_XS": (256, 2.0, "square"),
}


def importance_alone(name: str, x: numpy.ndarray, importance: numpy.ndarray | None) -> numpy.ndarray:
    """What `--search best` minimises, whatever the type: the importance, or 1. float64 [rows, columns]."""
    return numpy.broadcast_to(1.0 if importance is None else importance.astype(numpy.float64), x.shape)


def ggml_weights(name: str, x: numpy.ndarray, importance: numpy.ndarray | None) -> numpy.ndarray:
    """Weights of the squared errors in ggml's search, float64 [rows, columns]; ``importance`` [columns] or None."""
    block, factor, plain = OBJECTIVES[name]
    x = x.astype(numpy.float64)
    sigma2 = (factor or 0.0) * means(x, block)
    if importance is None:
        return PLAIN[plain](x, sigma2)
    q = importance.astype(numpy.float64)
    if factor is None:
        return numpy.broadcast_to(q, x.shape)
    return q * numpy.sqrt(sigma2 + x * x)


#: whose weights -> the function
WEIGHTS = {"best": importance_alone, "ggml": ggml_weights}


def error(
    name: str, x: numpy.ndarray, importance: numpy.ndarray | None, decoded: numpy.ndarray, of: str = "best"
) -> float:
    """The sum for one tensor, with the weights ``of`` a search."""
    difference = x.astype(numpy.float64) - decoded
    return float((WEIGHTS[of](name, x, importance) * difference * difference).sum())
