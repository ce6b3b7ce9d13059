"""The runner's C kernels: products with packed weights, attention, norms, rotations, statistics; on a pool of threads.

`Products` takes the place of the numpy reference (operations.py). It owns its threads; results do not depend on their
number. The instruction set is that of `quantcli.kernels` (QUANTCLI_SIMD).
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from quantcli import formats, kernels
from quantcli.errors import NoKernel, QuantcliError
from quantcli.runner.operations import Operations
from quantcli.runner.weights import Matrix

Array = numpy.ndarray

MODES = {"float": 0, "q8": 1, "int16": 2}
MOST_THREADS = 256

_DECLARATIONS = """
typedef struct qc_pool qc_pool;
qc_pool *qc_pool_new(int32_t threads);
void qc_pool_free(qc_pool *pool);
int32_t qc_pool_threads(const qc_pool *pool);
typedef struct {
    int32_t type;
    const uint8_t *weights;
    int64_t rows, columns;
    const float *x;
    int64_t x_stride, tokens;
    float *out;
    int64_t out_stride;
} qc_product;
int32_t qc_can_multiply(int32_t type);
int32_t qc_matmul(qc_pool *pool, int32_t isa, int32_t mode, const qc_product *products, int32_t count);
int32_t qc_round_activations(qc_pool *pool, int32_t isa, int32_t mode, int32_t type, const float *x, int64_t tokens,
                             int64_t columns, float *out);
typedef struct {
    const float *q;
    int64_t q_token, q_head;
    const void *k, *v;
    int64_t k_head, k_position, v_head, v_position;
    int32_t half;
    int64_t tokens, start, heads, kv_heads, width, value_width;
    int64_t window;
    float scale, cap;
    const float *sinks;
    float *out;
    int64_t out_token, out_head;
} qc_attention;
int32_t qc_attend(qc_pool *pool, int32_t isa, const qc_attention *sequences, int32_t count);
int32_t qc_rms_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns, const float *weight,
                    float eps, float *out);
int32_t qc_layer_norm(qc_pool *pool, int32_t isa, const float *x, int64_t rows, int64_t columns,
                      const float *weight, const float *bias, float eps, float *out);
int32_t qc_activate(qc_pool *pool, int32_t isa, int32_t kind, const float *gate, int64_t gate_stride, const float *up,
                    int64_t up_stride, int64_t rows, int64_t columns, float *out);
int32_t qc_rotate(qc_pool *pool, int32_t isa, const float *x, int64_t positions, int64_t heads, int64_t width,
                  int64_t pairs, int32_t neox, const float *cosines, const float *sines, float *out);
int32_t qc_log_softmax(qc_pool *pool, int32_t isa, float *logits, int64_t rows, int64_t columns, float scale,
                       float cap);
int32_t qc_divergence(qc_pool *pool, int32_t isa, const float *base, const float *other, int64_t rows, int64_t columns,
                      double *divergence, int64_t *base_top, int64_t *other_top);
int64_t qc_peak(int32_t isa, int32_t kind, int64_t rounds);
"""
KINDS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4, "swiglu_oai": 5}


@cache
def _library() -> tuple[Any, Any]:
    from cffi import FFI

    kernels.instruction_sets()  # the errors of a missing or foreign library are told there
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    suffix = "dylib" if os.uname().sysname == "Darwin" else "so"
    return ffi, ffi.dlopen(str(Path(kernels.__file__).parent / "_lib" / f"libquantcli.{suffix}"))


def can_multiply(type_id: int) -> bool:
    """Whether weights of this type can be multiplied as they are stored."""
    return bool(_library()[1].qc_can_multiply(type_id))


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Products(Operations):
    """Operations in C. ``threads``: None for all processors. ``isa``: a name of `kernels.instruction_sets`, or None.

    Calls from several Python threads take turns. Not for use after fork().
    """

    def __init__(self, activations: str = "float", threads: int | None = None, isa: str | None = None) -> None:
        super().__init__(activations)
        self.ffi, self.lib = _library()
        self.threads = max(1, min(threads or usable_threads(), MOST_THREADS))
        pool = self.lib.qc_pool_new(self.threads)
        if pool == self.ffi.NULL:
            raise QuantcliError(f"{self.threads} threads cannot be started", hint="use fewer --threads")
        self.pool = self.ffi.gc(pool, self.lib.qc_pool_free)
        self.isa = kernels.isa_index(isa)

    # ---- products

    def product(self, type_id: int, raw: Any, rows: int, x: Array, out: Array | None = None) -> Array:
        """``x`` float32 [tokens, columns] times ``rows`` packed rows: float32 [tokens, rows]."""
        if out is None:
            out = numpy.empty((len(x), rows), numpy.float32)
        self._run([self._entry(type_id, raw, rows, x, out)])
        return out

    def multiply(self, x: Array, *weights: Matrix) -> list[Array]:
        results = [numpy.empty((len(x), weight.rows), numpy.float32) for weight in weights]
        self._run([self._entry(weight.type.id, weight.data[0], weight.rows, x, out)
                   for weight, out in zip(weights, results, strict=True)])
        for weight, out in zip(weights, results, strict=True):
            if weight.bias is not None:
                out += weight.bias[0]
        return results

    def multiply_experts(self, x: Array, chosen: Array, *weights: Matrix) -> list[Array]:
        order = numpy.argsort(chosen, axis=None, kind="stable")  # (token, slot) pairs, expert by expert
        used = chosen.shape[1]
        gathered = numpy.ascontiguousarray(x[order // used] if x.ndim == 2 else x.reshape(-1, x.shape[-1])[order])
        experts, starts = numpy.unique(chosen.reshape(-1)[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        entries, results = [], []
        for weight in weights:
            out = numpy.empty((len(order), weight.rows), numpy.float32)
            for expert, start, stop in zip(experts.tolist(), starts.tolist(), stops, strict=True):
                entries.append(self._entry(weight.type.id, weight.data[expert], weight.rows, gathered[start:stop],
                                           out[start:stop]))
            results.append(out)
        entries.sort(key=lambda entry: int(self.ffi.cast("uintptr_t", entry[0].x)))  # same inputs side by side
        self._run(entries)
        for place, (weight, out) in enumerate(zip(weights, results, strict=True)):
            if weight.bias is not None:
                out += weight.bias[chosen.reshape(-1)[order]]
            scattered = numpy.empty_like(out)
            scattered[order] = out
            results[place] = scattered.reshape(*chosen.shape, weight.rows)
        return results

    def rounded(self, type_id: int, x: Array) -> Array:
        """``x`` float32 [tokens, columns] as products with weights of this type see it."""
        out = numpy.empty_like(x)
        self._check(self.lib.qc_round_activations(self.pool, self.isa, MODES[self.activations], type_id,
                                                  self._floats(x), *x.shape, self._floats(out)), type_id)
        return out

    def _entry(self, type_id: int, raw: Any, rows: int, x: Array, out: Array) -> tuple:
        """(qc_product, what it points to). The C side trusts its pointers: mistakes of callers must end here."""
        tokens, columns = x.shape
        data = self.ffi.from_buffer("uint8_t[]", raw)
        expected = formats.row_bytes(formats.BY_ID[type_id], columns) * rows
        if len(data) < expected:
            raise ValueError(f"{len(data)} bytes where {expected} are needed")
        if out.shape != (tokens, rows):
            raise ValueError(f"out has shape {out.shape}, not {(tokens, rows)}")
        entry = self.ffi.new("qc_product *", (type_id, data, rows, columns, self._floats(x), columns, tokens,
                                              self._floats(out), rows))
        return entry, data, x, out, type_id

    def _run(self, entries: list[tuple]) -> None:
        list_of = self.ffi.new("qc_product[]", [entry[0][0] for entry in entries])
        status = self.lib.qc_matmul(self.pool, self.isa, MODES[self.activations], list_of, len(entries))
        self._check(status, entries[0][4] if entries else 0)

    # ---- elements

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        out = numpy.empty(x.shape, numpy.float32)
        x = numpy.ascontiguousarray(x)
        columns = x.shape[-1]
        self._check(self.lib.qc_rms_norm(self.pool, self.isa, self._floats(x), x.size // max(columns, 1), columns,
                                         self._floats(weight, count=columns), eps, self._floats(out)))
        return out

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        out = numpy.empty(x.shape, numpy.float32)
        x = numpy.ascontiguousarray(x)
        columns = x.shape[-1]
        self._check(self.lib.qc_layer_norm(self.pool, self.isa, self._floats(x), x.size // max(columns, 1), columns,
                                           self._floats(weight, count=columns), self._optional(bias, columns), eps,
                                           self._floats(out)))
        return out

    def activate(self, kind: str, gate: Array, up: Array | None) -> Array:
        columns = gate.shape[-1]
        out = numpy.empty(gate.shape, numpy.float32)
        if out.size == 0:
            return out
        gate, gate_stride = self._rows(gate)
        up, up_stride = (self.ffi.NULL, 0) if up is None else self._rows(up)
        self._check(self.lib.qc_activate(self.pool, self.isa, KINDS[kind], gate, gate_stride, up, up_stride,
                                         out.size // columns, columns, self._floats(out)))
        return out

    def rotate(self, x: Array, angles: tuple[Array, Array], kind: str) -> Array:
        """As `positions.rotate`: ``x`` [sequences, positions, heads, width], ``angles`` [positions, pairs] each."""
        sequences, length, heads, width = x.shape
        cosine, sine = (numpy.ascontiguousarray(part, numpy.float32) for part in angles)
        if cosine.shape != sine.shape or len(cosine) != length:
            raise ValueError(f"angles of shape {cosine.shape} and {sine.shape} for {length} positions")
        x, out = numpy.ascontiguousarray(x), numpy.empty(x.shape, numpy.float32)
        for i in range(sequences):
            self._check(self.lib.qc_rotate(
                self.pool, self.isa, self._floats(x[i]), length, heads, width, cosine.shape[1], kind != "norm",
                self._floats(cosine), self._floats(sine), self._floats(out[i])))
        return out

    # ---- attention

    def attend(self, q: Array, k: Array, v: Array, *, scale: float, start: int, window: int = 0, cap: float = 0.0,
               sinks: Array | None = None) -> Array:
        return self.attend_all([q], [k], [v], scale=scale, start=start, window=window, cap=cap, sinks=sinks)[0]

    def attend_all(self, q: Any, k: Any, v: Any, *, scale: float, start: int, window: int = 0, cap: float = 0.0,
                   sinks: Array | None = None) -> Array:
        """`attend` of several sequences at once: [sequences, positions, heads, value width].

        Each of ``q``, ``k``, ``v`` is a sequence of arrays as `attend` takes them (or one array with one more
        dimension); the keys and values may be float32 or float16 and strided, contiguous in the last dimension.
        """
        positions, heads, width = q[0].shape
        out = numpy.empty((len(q), positions, heads, v[0].shape[-1]), numpy.float32)
        share = self._optional(sinks, heads)
        entries = self.ffi.new("qc_attention[]", len(q))
        held: list[Any] = []
        for entry, query, keys, values, result in zip(entries, q, k, v, out, strict=True):
            self._attention(entry, numpy.ascontiguousarray(query), keys, values, result, start, held)
            entry.window, entry.scale, entry.cap, entry.sinks = window, scale, cap, share
        self._check(self.lib.qc_attend(self.pool, self.isa, entries, len(q)))
        return out

    def _attention(self, entry: Any, q: Array, k: Array, v: Array, out: Array, start: int, held: list[Any]) -> None:
        """Fill a qc_attention; what its pointers need alive goes to ``held``."""
        positions, heads, width = q.shape
        kv_heads, seen = k.shape[:2]
        if (k.dtype != v.dtype or k.shape[2] != width or v.shape[:2] != (kv_heads, seen) or seen < start + positions
                or heads % kv_heads):
            raise ValueError(f"queries {q.shape} at {start} do not fit keys {k.dtype} {k.shape}, "
                             f"values {v.dtype} {v.shape}")
        k, v = (x if x.strides[2] == x.itemsize else numpy.ascontiguousarray(x) for x in (k, v))
        if k.dtype not in (numpy.float32, numpy.float16):
            raise ValueError(f"keys of {k.dtype}")
        size = k.itemsize
        entry.q, entry.q_token, entry.q_head = self._floats(q), heads * width, width
        entry.k, entry.k_head, entry.k_position = self._address(k), k.strides[0] // size, k.strides[1] // size
        entry.v, entry.v_head, entry.v_position = self._address(v), v.strides[0] // size, v.strides[1] // size
        entry.half, entry.tokens, entry.start = size == 2, positions, start
        entry.heads, entry.kv_heads = heads, kv_heads
        entry.width, entry.value_width = width, v.shape[2]
        entry.out, entry.out_token, entry.out_head = self._floats(out), heads * v.shape[2], v.shape[2]
        held += [q, k, v, out]

    # ---- logits

    def log_softmax(self, logits: Array, scale: float = 1.0, cap: float = 0.0) -> Array:
        """Log-probabilities in place of float32 logits [..., vocabulary], which are scaled and capped before."""
        columns = logits.shape[-1]
        self._check(self.lib.qc_log_softmax(self.pool, self.isa, self._floats(logits), logits.size // max(columns, 1),
                                            columns, scale, cap))
        return logits

    def divergence(self, base: Array, other: Array) -> tuple[Array, Array, Array]:
        """Of log-probabilities [rows, vocabulary]: KL divergence (float64), first argmax of each (int64)."""
        rows, columns = base.shape
        if other.shape != base.shape:
            raise ValueError(f"{base.shape} against {other.shape}")
        result = numpy.zeros(rows), numpy.zeros(rows, numpy.int64), numpy.zeros(rows, numpy.int64)
        kinds = ("double[]", "int64_t[]", "int64_t[]")
        pointers = [self.ffi.from_buffer(kind, part) for kind, part in zip(kinds, result, strict=True)]
        self._check(self.lib.qc_divergence(self.pool, self.isa, self._floats(base), self._floats(other), rows, columns,
                                           *pointers))
        return result

    # ---- arrays and status

    def _optional(self, array: Array | None, count: int):
        return self.ffi.NULL if array is None else self._floats(array, count=count)

    def _address(self, array: Array):
        """A pointer to an array of any layout; the caller keeps it alive and inside its bounds."""
        return self.ffi.cast("void *", array.__array_interface__["data"][0])

    def _rows(self, array: Array) -> tuple[Any, int]:
        """(pointer, floats from row to row) of float32 rows; a slice of the last dimension is not copied."""
        if array.dtype != numpy.float32 or array.ndim != 2 or array.strides[1] != 4 or array.strides[0] < 0:
            array = numpy.ascontiguousarray(array, numpy.float32)
            return self._floats(array), array.shape[-1]
        return self.ffi.cast("float *", self._address(array)), array.strides[0] // 4

    def _floats(self, array: Array, *, count: int | None = None):
        """A pointer to a C-contiguous float32 array (of at least ``count`` elements)."""
        if array.dtype != numpy.float32 or not array.flags.c_contiguous or (count is not None and array.size < count):
            raise ValueError(f"need a C-contiguous float32 array of {count or array.size} elements, "
                             f"got {array.dtype} {array.shape}")
        return self.ffi.from_buffer("float[]", array)

    @staticmethod
    def _check(status: int, type_id: int = 0) -> None:
        if status == kernels.NO_MEMORY:
            raise QuantcliError("out of memory in a kernel of the runner", hint="use a smaller context or batch")
        if status != kernels.OK:
            raise NoKernel(f"this build cannot multiply {formats.BY_ID[type_id].name}",
                           hint="`quantcli formats` shows what it can")
