"""What the forward pass computes with: the one place where faster kernels take over.

`Operations` is the reference in numpy (products through its BLAS, weights decoded by slabs of rows). A faster
implementation derives from it and replaces what it does better; everything goes through these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log1p, sqrt
from typing import Any

import numpy

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.runner import positions, recurrence
from quantcli.runner.arrays import Bytes, Doubles, Floats, Ints, Reals
from quantcli.runner.positions import Distances
from quantcli.runner.rounding import rounded
from quantcli.runner.steps import AnyArray, Recording
from quantcli.runner.weights import PackedMatrix

ACTIVATIONS = ("q8", "int16", "float")
SLAB = 4 << 20  # weights that are decoded at a time
QUERIES = 256  # positions whose scores are held at a time


class Operations:
    """Products, norms, attention. All arrays are float32 and C-contiguous unless said otherwise.

    ``activations`` says how the inputs of products are rounded ("q8", "int16", "float", see rounding.py).
    Thread-safe as long as every thread has its own arrays.
    """

    def __init__(self, activations: str = "float") -> None:
        self.activations = activations

    def recording(self) -> Recording | None:
        """A way to do one token's steps again without Python, where these operations have one."""
        return None

    # ---- products

    def multiply(self, x: Floats, *weights: PackedMatrix) -> list[Floats]:
        """``x`` [tokens, columns] times each of ``weights``: [tokens, rows] each, biases added.

        Weights that read the same input come in one call, so that it is rounded (and its threads started) once.
        """
        return [self._product(rounded(x, weight.type, self.activations), weight, 0) for weight in weights]

    def multiply_experts(self, x: Floats, chosen: Ints, *weights: PackedMatrix, always: bool = False) -> list[Floats]:
        """Each token through its experts: [tokens, used, rows] per weight.

        ``chosen``: int [tokens, used], experts of every token; the same whatever the token if ``always``. ``x``:
        [tokens, columns] (all experts of a token read the same row) or [tokens, used, columns].
        """
        results = [numpy.empty((*chosen.shape, weight.rows), numpy.float32) for weight in weights]
        for expert in numpy.unique(chosen):
            token, slot = numpy.nonzero(chosen == expert)
            rows = numpy.ascontiguousarray(x[token] if x.ndim == 2 else x[token, slot])
            for weight, result in zip(weights, results, strict=True):
                result[token, slot] = self._product(rounded(rows, weight.type, self.activations), weight, int(expert))
        return results

    def _product(self, x: Floats, weight: PackedMatrix, matrix: int) -> Floats:
        result = numpy.empty((len(x), weight.rows), numpy.float32)
        step = max(64, SLAB // weight.columns)
        for start in range(0, weight.rows, step):
            stop = min(start + step, weight.rows)
            numpy.matmul(x, weight.decode(start, stop, matrix).T, out=result[:, start:stop])
        if weight.bias is not None:
            result += weight.bias[matrix]
        return result

    # ---- elements

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
        mean = numpy.einsum("...i,...i->...", x, x)[..., None] / numpy.float32(x.shape[-1])
        result: Floats = x * (1 / numpy.sqrt(mean + numpy.float32(eps))) * weight
        return result

    def layer_norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = numpy.einsum("...i,...i->...", centred, centred)[..., None] / numpy.float32(x.shape[-1])
        result: Floats = centred * (1 / numpy.sqrt(variance + numpy.float32(eps))) * weight
        return result if bias is None else result + bias

    def add(self, x: Floats, y: Floats, scale: float = 1.0) -> Floats:
        """x + scale * y."""
        return x + (y if scale == 1 else y * numpy.float32(scale))

    def activate(self, kind: str, gate: Floats, up: Floats | None, parameters: tuple[float, ...] = ()) -> Floats:
        """act(gate) * up, or act(gate) where there is no ``up``; ``kind`` as `Graph.activation`."""
        if kind == "xielu":
            return xielu(gate, xielu_numbers(*parameters))
        if kind == "swiglu_oai" and up is not None:
            return swiglu_oai(gate, up)
        result = ACTIVATION[kind](gate)
        return result if up is None else numpy.multiply(result, up, out=result)

    def host(self, function: Callable[..., Any], *inputs: AnyArray) -> Any:
        """``function(*inputs)``, of arrays alone: what has no kernel, where passes of one token are recorded."""
        return function(*inputs)

    def rotate(self, x: Floats, angles: positions.AngleTable, kind: str) -> Floats:
        """Rotary positions of ``x`` [sequences, positions, heads, width], see `positions.rotate`."""
        return positions.rotate(x, angles, kind)

    # ---- attention

    def store(self, x: Floats, tensor_type: TensorType, out: Bytes) -> None:
        """Rows of a type: ``x`` [sequences, positions, heads, width], ``out`` [sequences, heads, positions, bytes]."""
        raw = kernels.encode(tensor_type.id, numpy.ascontiguousarray(x).reshape(-1, x.shape[-1]))
        out[...] = raw.reshape(*x.shape[:3], -1).transpose(0, 2, 1, 3)

    def attend_all(
        self,
        q: Floats,
        k: Reals,
        v: Reals,
        *,
        scale: float,
        start: int,
        window: int = 0,
        ahead: int = 0,
        cap: float = 0.0,
        sinks: Floats | None = None,
        distances: Distances | None = None,
    ) -> Floats:
        """`attend` for several sequences: every array has one more dimension in front."""
        return numpy.stack(
            [
                self.attend(
                    *one,
                    scale=scale,
                    start=start,
                    window=window,
                    ahead=ahead,
                    cap=cap,
                    sinks=sinks,
                    distances=distances,
                )
                for one in zip(q, k, v, strict=True)
            ]
        )

    def attend(
        self,
        q: Floats,
        k: Reals,
        v: Reals,
        *,
        scale: float,
        start: int,
        window: int = 0,
        ahead: int = 0,
        cap: float = 0.0,
        sinks: Floats | None = None,
        distances: Distances | None = None,
    ) -> Floats:
        """Attention of one sequence, causal unless ``ahead`` says more: [positions, heads, value width].

        ``q``: [positions, heads, width], the first at position ``start``; ``k``, ``v``: [kv heads, start + positions,
        width] of all positions so far, float32 or float16, strided or not. Position i sees j with i - window < j <=
        i + ahead (every j before it without a window). Scores are capped as cap * tanh(score / cap) where ``cap`` is
        not 0, then ``distances`` are added; ``sinks`` [heads] adds one logit to the softmax.
        """
        length, heads, width = q.shape
        k, v = k.astype(numpy.float32, copy=False), v.astype(numpy.float32, copy=False)
        groups = heads // len(k)
        result = numpy.empty((length, heads, v.shape[-1]), numpy.float32)
        for first in range(0, length, QUERIES):
            last = min(first + QUERIES, length)
            low = max(0, start + first - window + 1) if window else 0
            high = min(start + last + ahead, start + length)
            block = numpy.ascontiguousarray(q[first:last].transpose(1, 0, 2)).reshape(len(k), -1, width)
            scores = numpy.matmul(block, k[:, low:high].transpose(0, 2, 1))  # [kv heads, groups * queries, keys]
            scores = scores.reshape(len(k), groups, last - first, high - low)
            scores *= numpy.float32(scale)
            scale_and_cap(scores, 1, cap)
            if distances is not None:
                scores += distances.between(start + first, last - first, low, high).reshape(scores.shape)
            mask(scores, start + first, low, window, ahead)
            softmax(scores, None if sinks is None else sinks.reshape(len(k), groups, 1, 1))
            mixed = numpy.matmul(scores.reshape(len(k), -1, high - low), v[:, low:high])
            result[first:last] = mixed.reshape(heads, last - first, -1).transpose(1, 0, 2)
        return result

    # ---- layers with a state

    def convolve(self, x: Floats, window: Floats, kernel: Floats, bias: Floats | None, *, silu: bool) -> Floats:
        """See `recurrence.convolve`; ``silu`` of the result."""
        result = recurrence.convolve(x, window, kernel, bias)
        return ACTIVATION["silu"](result) if silu else result

    def recur(self, r: recurrence.Recurrence) -> Floats:
        """See `recurrence.recur`."""
        return recurrence.recur(r)

    def gates(self, forget: Floats, write: Floats | None, bias: Floats, rate: Floats) -> tuple[Floats, Floats]:
        """See `recurrence.gates`."""
        return recurrence.gates(forget, write, bias, rate)

    def scan(
        self, x: Floats, step: Floats, rate: Floats, key: Floats, query: Floats, skip: Floats, state: Floats
    ) -> Floats:
        """See `recurrence.scan`."""
        return recurrence.scan(x, step, rate, key, query, skip, state)

    # ---- logits

    def log_softmax(self, logits: Floats, scale: float = 1.0, cap: float = 0.0) -> Floats:
        """Log-probabilities in place of ``logits`` [..., vocabulary], scaled and then capped (as scores are) before.

        Differences to the maximum in float32, sum and logarithm in float64.
        """
        scale_and_cap(logits, scale, cap)
        logits -= logits.max(axis=-1, keepdims=True)
        total = numpy.exp(logits).sum(axis=-1, keepdims=True, dtype=numpy.float64)
        logits -= numpy.log(total).astype(numpy.float32)
        return logits

    def divergence(self, base: Floats, other: Floats) -> tuple[Doubles, Ints, Ints]:
        """Of log-probabilities [rows, vocabulary]: KL(base || other) in float64, first argmax of each."""
        divergence = numpy.einsum("ij,ij->i", numpy.exp(base), base - other, dtype=numpy.float64)
        return divergence, base.argmax(axis=1), other.argmax(axis=1)


def scale_and_cap(logits: Floats, scale: float, cap: float) -> Floats:
    """In place: logits * scale, then cap * tanh(logits / cap); 1 and 0 are off."""
    if scale != 1:
        logits *= numpy.float32(scale)
    if cap:
        logits /= numpy.float32(cap)
        numpy.tanh(logits, out=logits)
        logits *= numpy.float32(cap)
    return logits


def mask(scores: Floats, first: int, low: int, window: int, ahead: int = 0) -> None:
    """Set what a query may not see to -inf: scores [..., queries from position first, keys from position low]."""
    query = numpy.arange(first, first + scores.shape[-2])[:, None]
    key = numpy.arange(low, low + scores.shape[-1])[None, :]
    hidden = key > query + ahead
    if window:
        hidden |= key <= query - window
    if hidden.any():
        scores[..., hidden] = -numpy.inf


def softmax(scores: Floats, sinks: Floats | None = None) -> None:
    """Softmax over the last dimension, in place; a sink takes its share and disappears."""
    largest = scores.max(axis=-1, keepdims=True)
    if sinks is not None:
        largest = numpy.maximum(largest, sinks)
    scores -= largest
    numpy.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total += numpy.exp(sinks - largest)
    scores /= total


# ---- activation functions


def sigmoid(x: Floats) -> Floats:
    with numpy.errstate(over="ignore"):
        total: Floats = 1 + numpy.exp(-x)
        return numpy.float32(1) / total


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


def gelu_tanh(x: Floats) -> Floats:
    """The approximation 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    inner = numpy.float32(sqrt(2 / numpy.pi)) * (x + numpy.float32(0.044715) * x * x * x)
    result: Floats = numpy.float32(0.5) * x * (1 + numpy.tanh(inner))
    return result


def gelu(x: Floats) -> Floats:
    """0.5 x (1 + erf(x / sqrt 2))."""
    return numpy.float32(0.5) * x * (1 + erf(x * numpy.float32(sqrt(0.5))))


def erf(x: Floats) -> Floats:
    """Error function to 1.2e-7: Numerical Recipes' Chebyshev fit of erfc (3rd edition, section 6.2.2)."""
    magnitude = numpy.abs(x).astype(numpy.float64)
    t = 1 / (1 + 0.5 * magnitude)
    fit = (
        -1.26551223,
        1.00002368,
        0.37409196,
        0.09678418,
        -0.18628806,
        0.27886807,
        -1.13520398,
        1.48851587,
        -0.82215223,
        0.17087277,
    )
    exponent = numpy.zeros_like(t)
    for factor in reversed(fit):
        exponent = exponent * t + factor
    return (numpy.sign(x) * (1 - t * numpy.exp(exponent - magnitude * magnitude))).astype(numpy.float32)


def xielu_numbers(alpha_n: float, alpha_p: float, beta: float, eps: float) -> Floats:
    """What `xielu` computes with, of a layer's parameters: softplus(alpha_p), beta + softplus(alpha_n), beta, eps."""
    above, below = log1p(exp(alpha_p)), beta + log1p(exp(alpha_n))
    return numpy.array([above, below, beta, eps], numpy.float32)


def xielu(x: Floats, numbers: Floats) -> Floats:
    """p x^2 + beta x above 0, n (expm1(min(x, eps)) - x) + beta x elsewhere; ``numbers`` are p, n, beta and eps.

    The expanded integral of ELU (Huang and Schlag 2024, arXiv 2411.13010).
    """
    above, below, beta, eps = numbers
    negative = (numpy.expm1(numpy.minimum(x, eps)) - x) * below
    result: Floats = numpy.where(x > 0, above * x * x, negative) + beta * x
    return result


def swiglu_oai(gate: Floats, up: Floats) -> Floats:
    """gpt-oss: (min(up, 7) clamped below at -7, plus 1) * g * sigmoid(1.702 g), g = min(gate, 7)."""
    limit = numpy.float32(7)
    gate = numpy.minimum(gate, limit)
    return (numpy.clip(up, -limit, limit) + 1) * gate * sigmoid(numpy.float32(1.702) * gate)


ACTIVATION: dict[str, Callable[[Floats], Floats]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": lambda x: numpy.maximum(x, 0),
    "relu2": lambda x: numpy.square(numpy.maximum(x, 0)),
}


def clamped(x: Floats, most: float) -> Floats:
    """``x`` cut off at -most and most."""
    return numpy.clip(x, numpy.float32(-most), numpy.float32(most))


def top_indices(values: Floats, count: int) -> Ints:
    """Indices of the ``count`` largest elements of each row, largest first; equal ones by index."""
    return numpy.argsort(-values, axis=-1, kind="stable")[..., :count]


def split(x: Floats, widths: Sequence[int]) -> list[Floats]:
    """Cut the last dimension into pieces of the given widths."""
    bounds = numpy.cumsum(widths)[:-1]
    return numpy.split(x, bounds, axis=-1)
