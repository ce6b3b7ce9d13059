"""Normal numbers as the random weights of the oracle checkpoints were drawn: a function of one 32-bit seed.

The checkpoints hold ``randn`` of torch's generator on the CPU. What that computes (Mersenne Twister, 24 bits a uniform
number, Box and Muller over groups of 16) is computed here with numpy, and the logarithm and the rotation with sums and
products alone, which every machine rounds alike: the last bit of a value may differ from torch's, but never from run to
run. Whoever needs torch's exact bits corrects those few (``oracles.py`` does).
"""

from __future__ import annotations

import math

import numpy
from numpy.typing import NDArray

GROUP = 16  # so many numbers are drawn at once: 8 radii, then 8 angles
LOG_TERMS = 14  # (0.172 ** 2) ** 14 < 2 ** -53
TURN_TERMS = 10  # (pi / 4) ** 20 / 20! < 2 ** -53


def logarithm(x: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Natural logarithm of positive numbers, by 2 artanh((m - 1) / (m + 1)) with m near 1."""
    mantissa, exponent = numpy.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa, exponent = numpy.where(small, 2 * mantissa, mantissa), exponent - small
    s = (mantissa - 1) / (mantissa + 1)
    total = numpy.zeros_like(s)
    for k in range(LOG_TERMS, -1, -1):
        total = total * (s * s) + 1 / (2 * k + 1)
    return 2 * s * total + exponent * math.log(2)


def cosine_and_sine(angle: NDArray[numpy.float64]) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Of angles in radians, not many turns: Taylor's series after whole quarters are taken away."""
    quarter = numpy.rint(angle / (math.pi / 2))
    x = angle - quarter * (math.pi / 2)
    cosine, sine = numpy.zeros_like(x), numpy.zeros_like(x)
    for k in range(TURN_TERMS, -1, -1):
        cosine = 1 / math.factorial(2 * k) - x * x * cosine
        sine = 1 / math.factorial(2 * k + 1) - x * x * sine
    sine = sine * x
    turns = quarter.astype(numpy.int64) % 4
    return (
        numpy.choose(turns, [cosine, -sine, -cosine, sine]),
        numpy.choose(turns, [sine, cosine, -sine, -cosine]),
    )


def transform(uniform: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """Box and Muller, on groups of 16 uniform numbers [groups, 16] in float32."""
    first, second = 1 - uniform[:, : GROUP // 2], uniform[:, GROUP // 2 :]
    logarithms = logarithm(first.astype(numpy.float64)).astype(numpy.float32)
    radius = numpy.sqrt(numpy.float32(-2) * logarithms)
    angle = numpy.float32(2 * math.pi) * second
    cosine, sine = (part.astype(numpy.float32) for part in cosine_and_sine(angle.astype(numpy.float64)))
    return numpy.concatenate([radius * cosine, radius * sine], axis=1)


def normals(seed: int, count: int) -> NDArray[numpy.float32]:
    """The first numbers of a seed: float32, shape (count,); count is at least 16."""
    last = GROUP if count % GROUP else 0  # the last 16 are then drawn anew
    state = numpy.random.RandomState(seed)
    drawn = state.randint(0, 2**32, count + last, dtype=numpy.uint32) & numpy.uint32(2**24 - 1)
    uniform = drawn.astype(numpy.float32) * numpy.float32(2**-24)
    whole = count // GROUP * GROUP
    found = numpy.empty(count, numpy.float32)
    found[:whole] = transform(uniform[:whole].reshape(-1, GROUP)).reshape(-1)
    if last:
        found[-GROUP:] = transform(uniform[count:].reshape(1, GROUP)).reshape(-1)
    return found
