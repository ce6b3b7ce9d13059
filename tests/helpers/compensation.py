"""The compensating encoder once more: plain numpy, float64, one column after the other, for the tests' comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy

from quantcli.ggml import kernels, tensor_types

# type: levels (None: all integers of its codes), integers of scales, greatest integer of minima, offset of d and dmin
FORMS = {
    "Q4_0": (None, (1, 1), 0, (0, None)),
    "Q4_1": (None, (1, 1), 0, (0, 2)),
    "Q8_0": (None, (1, 1), 0, (0, None)),
    "Q2_K": (None, (0, 15), 15, (80, 82)),
    "Q3_K": (None, (-32, 31), 0, (108, None)),
    "Q4_K": (None, (0, 63), 63, (0, 2)),
    "Q6_K": (None, (-128, 127), 0, (208, None)),
    "IQ4_XS": ((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), (-32, 31), 0, (0, None)),
    "TQ2_0": (None, (1, 1), 0, (64, None)),
}


@dataclass
class State:
    """Rows at work: value = scale * level + minimum."""

    name: str
    sub: int
    block: int
    target: numpy.ndarray  # [rows, columns]
    level: numpy.ndarray
    integer: numpy.ndarray  # [rows, sub-blocks]
    below: numpy.ndarray  # integers of minima; of Q4_1 -1
    d: numpy.ndarray  # [rows, blocks]
    dmin: numpy.ndarray

    @property
    def scale(self):
        return self.d.repeat(self.block // self.sub, axis=1) * self.integer

    @property
    def minimum(self):
        return -self.dmin.repeat(self.block // self.sub, axis=1) * self.below

    @property
    def value(self):
        return self.scale.repeat(self.sub, axis=1) * self.level + self.minimum.repeat(self.sub, axis=1)

    def nearest(self, steps):
        levels, layout = FORMS[self.name][0], kernels.layout(_id(self.name))
        if levels is None:
            return numpy.clip(numpy.rint(steps), layout.low, layout.high)
        table = numpy.array(levels, float)
        return table[numpy.abs(numpy.asarray(steps)[..., None] - table).argmin(axis=-1)]


def _id(name):
    return tensor_types.BY_NAME[name].id


def start(name, target, blocks):
    """The state of rows and the blocks of the plain search."""
    layout = kernels.layout(_id(name))
    _, integers, _, (at, at_minimum) = FORMS[name]
    raw = blocks.reshape(len(target), -1, layout.bytes)
    d = raw[:, :, at : at + 2].copy().view(numpy.float16)[:, :, 0].astype(float)
    dmin = numpy.zeros_like(d)
    if at_minimum is not None:
        dmin = raw[:, :, at_minimum : at_minimum + 2].copy().view(numpy.float16)[:, :, 0].astype(float)
    scale, minimum = (a.astype(float) for a in kernels.parameters(_id(name), blocks, *target.shape))
    wide = layout.block // layout.sub_block
    integer, below = numpy.rint(_ratio(scale, d.repeat(wide, 1))), -numpy.rint(_ratio(minimum, dmin.repeat(wide, 1)))
    if integers[0] == integers[1]:
        integer = numpy.ones_like(scale)
        below = numpy.full_like(scale, -1.0 if at_minimum is not None else 0.0)
    level = numpy.zeros(target.shape)
    return State(name, layout.sub_block, layout.block, target.astype(float), level, integer, below, d, dmin)


def _ratio(a, b):
    return numpy.divide(a, b, out=numpy.zeros_like(a), where=b != 0)


def gptq(state, metric):
    inverse = _ratio(numpy.ones_like(state.scale), state.scale)
    moved, order, factor = state.target.copy(), metric.order, metric.factor.astype(float)
    for p, j in enumerate(order):
        g = j // state.sub
        state.level[:, j] = state.nearest((moved[:, j] - state.minimum[:, g]) * inverse[:, g])
        error = state.target[:, j] - (state.scale[:, g] * state.level[:, j] + state.minimum[:, g])
        moved[:, order[p + 1 :]] += error[:, None] * factor[p, p + 1 :]


def polish(state, hessian, order):
    inverse = _ratio(numpy.ones_like(state.scale), state.scale)
    slope = (state.target - state.value) @ hessian
    for j in order:
        g = j // state.sub
        best = state.nearest(state.level[:, j] + slope[:, j] / hessian[j, j] * inverse[:, g])
        change = state.scale[:, g] * (best - state.level[:, j])
        change = numpy.where(change * (change * hessian[j, j] - 2 * slope[:, j]) < 0, change, 0)
        state.level[:, j] = numpy.where(change != 0, best, state.level[:, j])
        slope -= change[:, None] * hessian[j]


def refit(state, hessian):
    """Row by row: the moves are few."""
    _, (least, most), most_minimum, (_, at_minimum) = FORMS[state.name]
    slope = (state.target - state.value) @ hessian
    subs = state.block // state.sub
    for row in range(len(state.target)):
        for b in range(state.d.shape[1]):
            if least < most:
                for g in range(b * subs, (b + 1) * subs):
                    refit_integers(state, hessian, slope, row, b, g, (least, most, most_minimum))
            refit_halves(state, hessian, slope, row, b, at_minimum is not None)


def quadratic(hessian, slope, z1, z2, columns):
    part = hessian[columns, columns]
    z = numpy.stack([z1, z2])
    return z @ part @ z.T, z @ slope[columns]


def change(G, b, x1, x2):
    x = numpy.array([x1, x2])
    return x @ G @ x - 2 * b @ x


def best_first(G, b, minima):
    det = G[0, 0] * G[1, 1] - G[0, 1] ** 2
    if minima and det > 1e-6 * G[0, 0] * G[1, 1]:
        return (b[0] * G[1, 1] - b[1] * G[0, 1]) / det
    return b[0] / G[0, 0] if G[0, 0] > 0 else 0.0


def refit_integers(state, hessian, slope, row, b, g, ranges):
    least, most, most_minimum = ranges
    columns = slice(g * state.sub, (g + 1) * state.sub)
    d, dmin, scale, minimum = state.d[row, b], state.dmin[row, b], state.scale[row, g], state.minimum[row, g]
    if d == 0:
        return
    z1 = state.level[row, columns]
    G, b_ = quadratic(hessian, slope[row], z1, numpy.full(state.sub, 1.0 if most_minimum else 0.0), columns)
    found = (0.0, state.integer[row, g], state.below[row, g])
    base = numpy.floor((scale + best_first(G, b_, most_minimum)) / d)
    for candidate in numpy.clip(base + numpy.arange(-1, 3), least, most):
        x1 = d * candidate - scale
        below = [state.below[row, g]]
        if most_minimum and dmin != 0:
            wanted = numpy.floor(-(minimum + (b_[1] - x1 * G[0, 1]) / G[1, 1]) / dmin)
            below = numpy.clip([wanted, wanted + 1], 0, most_minimum)
        for m in below:
            found = min(found, (change(G, b_, x1, -dmin * m - minimum), candidate, m))
    if found[0] < -1e-7 * abs(b_[0] * scale):
        before = state.value[row, columns]
        state.integer[row, g], state.below[row, g] = found[1:]
        slope[row] -= (state.value[row, columns] - before) @ hessian[columns]


def halves(a):
    near = numpy.float16(numpy.clip(a, -6e4, 6e4))
    return sorted({float(near), *(float(numpy.nextafter(near, numpy.float16(to))) for to in (-6e4, 6e4))})


def refit_halves(state, hessian, slope, row, b, minima):
    columns = slice(b * state.block, (b + 1) * state.block)
    subs = slice(b * (state.block // state.sub), (b + 1) * (state.block // state.sub))
    z1 = state.integer[row, subs].repeat(state.sub) * state.level[row, columns]
    z2 = -state.below[row, subs].repeat(state.sub)
    G, b_ = quadratic(hessian, slope[row], z1, z2, columns)
    d, dmin = state.d[row, b], state.dmin[row, b]
    found = (0.0, d, dmin)
    for candidate in halves(d + best_first(G, b_, minima)):
        x1, others = candidate - d, [dmin]
        if minima:
            others = halves(dmin + ((b_[1] - x1 * G[0, 1]) / G[1, 1] if G[1, 1] > 0 else 0.0))
        for m in others:
            found = min(found, (change(G, b_, x1, m - dmin), candidate, m))
    if found[0] < -1e-7 * abs(b_[0] * d):
        before = state.value[row, columns]
        state.d[row, b], state.dmin[row, b] = found[1:]
        slope[row] -= (state.value[row, columns] - before) @ hessian[columns]


def encode(name, target, blocks, metric, effort):
    """The loss of every row after the same steps as the encoder's (without its guard)."""
    state, hessian = start(name, target, blocks), metric.hessian.astype(float)
    gptq(state, metric)
    if effort.polish:
        polish(state, hessian, metric.order)
    for _ in range(effort.rounds):
        refit(state, hessian)
        for _ in range(effort.sweeps):
            polish(state, hessian, metric.order)
    error = state.target - state.value
    return numpy.einsum("ij,ij->i", error @ hessian, error)


def block_ldlq(tensor_type, target, blocks, metric):
    """IQ2_XS: the losses of rows after GPTQ by groups of eight, over all 512 points and all 128 choices of signs."""
    scale = kernels.parameters(tensor_type.id, blocks, *target.shape)[0].astype(float)
    points, signs = _points(tensor_type), numpy.array(list(product((1, -1), repeat=8)))
    choices = (points[:, None] * signs[signs.prod(axis=1) > 0]).reshape(-1, 8)
    moved, errors, factor = target.astype(float), numpy.zeros(target.shape), metric.factor.astype(float)
    for p in range(0, len(metric.order), 8):
        columns, later = metric.order[p : p + 8], metric.order[p + 8 :]
        for row in range(len(target)):
            s = scale[row, columns[0] // 16]
            error = moved[row, columns] - s * choices
            best = choices[numpy.einsum("ci,ij,cj->c", error, metric.pivots[p // 8].astype(float), error).argmin()]
            errors[row, columns] = target[row, columns] - s * best
        moved[:, later] += errors[:, columns] @ factor[p : p + 8, p + 8 :]
    return numpy.einsum("ij,ij->i", errors @ metric.hessian.astype(float), errors)


def _points(tensor_type):
    """The 512 points of IQ2_XS, decoded from blocks that hold each once: scale 1, no signs."""
    block = numpy.zeros((16, tensor_type.bytes), numpy.uint8)
    block[:, :2] = numpy.array([8.0], numpy.float16).view(numpy.uint8)  # d (c + 1/2) / 4 = 1 with c = 0
    block[:, 2:66] = numpy.arange(512, dtype=numpy.uint16).view(numpy.uint8).reshape(16, 64)
    return kernels.decode(tensor_type.id, block, 16, 256).astype(float).reshape(512, 8)
