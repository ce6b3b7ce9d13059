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
"""


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
        self._check(self.lib.qc_round_activations(self.pool, self.isa, MODES[self.activations], type_id, self._floats(x),
                                                  *x.shape, self._floats(out)), type_id)
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

    # ---- arrays and status

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
            raise NoKernel(f"this build cannot multiply {formats.BY_ID[type_id].name}", hint="`quantcli formats` shows what it can")
