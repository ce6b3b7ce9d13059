"""What layers with a state compute from position to position, in numpy: the reference of the kernels in C.

Shapes: S sequences, T positions, C channels, H heads of P values, G groups of N keys that heads share. States are
changed in place; every function gives the same whether the positions come at once or in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from quantcli.runner.arrays import Floats, Ints


def convolve(x: Floats, window: Floats, kernel: Floats, bias: Floats | None) -> Floats:
    """Causal convolution of every channel: [S, T, C] -> [S, T, C].

    ``window`` [S, K - 1, C] are the inputs before, which the last ones replace; ``kernel`` [K, C], its last row for the
    position itself; ``bias`` [C].
    """
    length = x.shape[1]
    inputs = numpy.concatenate([window, x], axis=1)
    result: Floats = numpy.zeros(x.shape, numpy.float32)
    for place, row in enumerate(kernel):
        result += inputs[:, place : place + length] * row
    window[...] = inputs[:, length:]
    return result if bias is None else result + bias


@dataclass(frozen=True, slots=True, eq=False)
class Recurrence:
    """A linear recurrence of a matrix per head, ``state`` [S, H, N, P], changed in place.

    At every position, with a = ``decay``, k = ``key``, q = ``query``, v = ``value`` (and b = ``scale``, 1 if None):

        s = a s + k (b v)                                        Mamba 2, RWKV 6
        s = a s + k b (v - (a s)^T k)            ``delta``       gated delta rule (Yang et al. 2024, arXiv 2412.06464)
        s = a s + k (b v) + ``write`` (s^T ``read``)             RWKV 7 (Peng et al. 2025, arXiv 2503.14456)
        y = s^T q + ``skip`` v

    With ``bonus`` the output is read before the state changes, y = s^T q + sum(q bonus k) v (RWKV 6).
    """

    key: Floats  # [S, T, G, N]
    query: Floats  # [S, T, G, N]
    value: Floats  # [S, T, H, P]
    decay: Floats  # [S, T, H, 1], or one for every key: [S, T, H, N]
    state: Floats
    scale: Floats | None = None  # [S, T, H]
    skip: Floats | None = None  # [H]
    bonus: Floats | None = None  # [H, N]
    read: Floats | None = None  # [S, T, H, N]
    write: Floats | None = None  # [S, T, H, N]
    delta: bool = False
    tiled: bool = False  # head h reads group h % G, else h // (H / G)

    @property
    def groups(self) -> Ints:
        """The group of every head."""
        heads, groups = self.value.shape[2], self.key.shape[2]
        places = numpy.arange(heads)
        found: Ints = places % groups if self.tiled else places // (heads // groups)
        return found


def recur(r: Recurrence) -> Floats:
    """The outputs y of a recurrence: [S, T, H, P]."""
    result: Floats = numpy.empty(r.value.shape, numpy.float32)
    groups, state = r.groups, r.state
    for t in range(r.value.shape[1]):
        key, query, value = r.key[:, t, groups], r.query[:, t, groups], r.value[:, t]  # [S, H, N], [S, H, N], [S, H, P]
        written = value if r.scale is None else value * r.scale[:, t, :, None]
        if r.bonus is not None:
            share = (query * r.bonus * key).sum(axis=-1, keepdims=True)
            result[:, t] = numpy.einsum("shnp,shn->shp", state, query) + share * value
        if r.read is not None and r.write is not None:
            found = numpy.einsum("shnp,shn->shp", state, r.read[:, t])
            more = r.write[:, t, :, :, None] * found[:, :, None]
        state *= r.decay[:, t, :, :, None]
        if r.read is not None:
            state += more
        if r.delta:
            found = numpy.einsum("shnp,shn->shp", state, key)
            written = written - found if r.scale is None else written - found * r.scale[:, t, :, None]
        state += key[..., None] * written[:, :, None]
        if r.bonus is None:
            result[:, t] = numpy.einsum("shnp,shn->shp", state, query)
        if r.skip is not None:
            result[:, t] += r.skip[:, None] * value
    return result


def scan(x: Floats, step: Floats, rate: Floats, key: Floats, query: Floats, skip: Floats, state: Floats) -> Floats:
    """Selective scan (Gu and Dao 2023, arXiv 2312.00752): y [S, T, C] of the inputs ``x`` [S, T, C].

    ``step`` [S, T, C], ``rate`` [N, C], ``key`` and ``query`` [S, T, N], ``skip`` [C], ``state`` [S, N, C], changed in
    place: s = exp(step rate) s + step x key; y = s^T query + skip x.
    """
    result: Floats = numpy.empty(x.shape, numpy.float32)
    for t in range(x.shape[1]):
        state *= numpy.exp(step[:, t, None] * rate)
        state += key[:, t, :, None] * (step[:, t] * x[:, t])[:, None]
        result[:, t] = numpy.einsum("snc,sn->sc", state, query[:, t]) + skip * x[:, t]
    return result


def gates(forget: Floats, write: Floats | None, bias: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """Decay and scale of `Recurrence`, [tokens, H] each: with d = log(1 + e^(forget + bias)) they are exp(d rate), and
    sigmoid(write) or d itself. ``forget``, ``write``: [tokens, any, n], all heads in order; ``bias``, ``rate``: [H]."""
    step = softplus(forget.reshape(len(forget), -1) + bias)
    decay: Floats = numpy.exp(step * rate)
    if write is None:
        return decay, step
    share: Floats = numpy.reciprocal(1 + numpy.exp(-write.reshape(step.shape)))
    return decay, share


def softplus(x: Floats) -> Floats:
    """log(1 + e^x)."""
    return numpy.logaddexp(numpy.float32(0), x)
