"""The runner's C kernels: products with packed weights, attention, norms, rotations, statistics; on a pool of threads.

`Products` takes the place of the numpy reference (operations.py). It owns its threads; results do not depend on their
number. The instruction set is that of `quantcli.ggml.kernels` (QUANTCLI_SIMD).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy

from quantcli.errors import NoKernel, QuantcliError
from quantcli.ggml import kernels, tensor_types
from quantcli.runner import memory
from quantcli.runner.operations import Operations
from quantcli.runner.weights import Matrix

Array = numpy.ndarray

MODES = {"float": 0, "q8": 1, "int16": 2}
MOST_THREADS = 256

#: steps of qc_run (QC_STEP_...) -> what their arguments are in runner.h
STEPS = {
    "matmul": "qc_product[]",
    "rms_norm": "qc_norm *",
    "layer_norm": "qc_norm *",
    "activate": "qc_activation *",
    "rotate": "qc_rotation *",
    "add": "qc_addition *",
    "store": "qc_storage *",
    "attend": "qc_attention[]",
}
KINDS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4, "swiglu_oai": 5}


def can_multiply(type_id: int) -> bool:
    """Whether weights of this type can be multiplied as they are stored."""
    return bool(kernels.library()[1].qc_can_multiply(type_id))


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Products(Operations):
    """Operations in C. ``threads``: None for all processors. ``isa``: a name of `kernels.instruction_sets`, or None.

    Calls from several Python threads take turns. Not for use after fork().
    """

    def __init__(self, activations: str = "float", threads: int | None = None, isa: str | None = None) -> None:
        super().__init__(activations)
        memory.keep_freed()
        self.ffi, self.lib = kernels.library()
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
        self._matmul([self._entry(type_id, raw, rows, x, out)])
        return out

    def multiply(self, x: Array, *weights: Matrix) -> list[Array]:
        results = [numpy.empty((len(x), weight.rows), numpy.float32) for weight in weights]
        self._matmul(
            [
                self._entry(
                    weight.type.id, weight.data[0], weight.rows, x, out, None if weight.bias is None else weight.bias[0]
                )
                for weight, out in zip(weights, results, strict=True)
            ]
        )
        return results

    def multiply_experts(self, x: Array, chosen: Array, *weights: Matrix) -> list[Array]:
        order = numpy.argsort(chosen, axis=None, kind="stable")  # (token, slot) pairs, expert by expert
        used = chosen.shape[1]
        gathered = numpy.ascontiguousarray(x[order // used] if x.ndim == 2 else x.reshape(-1, x.shape[-1])[order])
        experts, starts = numpy.unique(chosen.reshape(-1)[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        entries, results = [], []
        for expert, start, stop in zip(experts.tolist(), starts.tolist(), stops, strict=True):
            for place, weight in enumerate(weights):  # the same inputs side by side
                if len(results) == place:
                    results.append(numpy.empty((len(order), weight.rows), numpy.float32))
                entries.append(
                    self._entry(
                        weight.type.id,
                        weight.data[expert],
                        weight.rows,
                        gathered[start:stop],
                        results[place][start:stop],
                        None if weight.bias is None else weight.bias[expert],
                    )
                )
        self._matmul(entries)
        scattered = []
        for out in results:
            result = numpy.empty_like(out)
            result[order] = out
            scattered.append(result.reshape(*chosen.shape, -1))
        return scattered

    def rounded(self, type_id: int, x: Array) -> Array:
        """``x`` float32 [tokens, columns] as products with weights of this type see it."""
        out = numpy.empty_like(x)
        self._check(
            self.lib.qc_round_activations(
                self.pool, self.isa, MODES[self.activations], type_id, self._floats(x), *x.shape, self._floats(out)
            ),
            type_id,
        )
        return out

    def _entry(self, type_id: int, raw: Any, rows: int, x: Array, out: Array, bias: Array | None = None) -> tuple:
        """(fields of a qc_product, its arrays). The C side trusts its pointers: mistakes of callers must end here."""
        tokens, columns = x.shape
        data = self.ffi.from_buffer("uint8_t[]", raw)
        expected = tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns) * rows
        if len(data) < expected:
            raise ValueError(f"{len(data)} bytes where {expected} are needed")
        if out.shape != (tokens, rows):
            raise ValueError(f"out has shape {out.shape}, not {(tokens, rows)}")
        fields = (
            type_id,
            data,
            rows,
            columns,
            self._floats(x),
            columns,
            tokens,
            self._floats(out),
            rows,
            self._optional(bias, rows),
        )
        return fields, raw, x, out, bias

    def _matmul(self, entries: list[tuple]) -> None:
        if entries:
            self._run(
                "matmul",
                [entry[0] for entry in entries],
                inputs=[entry[2] for entry in entries],
                outputs=[entry[3] for entry in entries],
                held=entries,
                type_id=entries[0][0][0],
            )

    def _run(
        self,
        name: str,
        fields: Any,
        *,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        held: Any = (),
        type_id: int = 0,
    ) -> Any:
        """Do one step now; returns its qc_step.

        ``inputs`` are what other steps have made, ``outputs`` what this one makes; with ``held`` (weights) they are
        all that the pointers in ``fields`` need alive. What could be done again later is a matter of replay.py.
        """
        struct, number = STEPS[name], getattr(self.lib, f"QC_STEP_{name.upper()}")
        arguments = self.ffi.new(struct, fields)
        step = self.ffi.new("qc_step *", (number, len(fields) if struct.endswith("[]") else 1, arguments))
        self._check(self.lib.qc_run(self.pool, self.isa, MODES[self.activations], step, 1, 0), type_id)
        return step, arguments

    # ---- elements

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        return self._norm("rms_norm", x, weight, None, eps)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        return self._norm("layer_norm", x, weight, bias, eps)

    def _norm(self, name: str, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        out = numpy.empty(x.shape, numpy.float32)
        x = numpy.ascontiguousarray(x)
        columns = x.shape[-1]
        self._run(
            name,
            (
                self._floats(x),
                x.size // max(columns, 1),
                columns,
                self._floats(weight, count=columns),
                self._optional(bias, columns),
                eps,
                self._floats(out),
            ),
            inputs=[x],
            outputs=[out],
            held=(weight, bias),
        )
        return out

    def add(self, x: Array, y: Array, scale: float = 1.0) -> Array:
        if x.shape != y.shape:
            raise ValueError(f"{x.shape} plus {y.shape}")
        out = numpy.empty(x.shape, numpy.float32)
        self._run(
            "add", (self._floats(x), self._floats(y), scale, x.size, self._floats(out)), inputs=[x, y], outputs=[out]
        )
        return out

    def activate(self, kind: str, gate: Array, up: Array | None) -> Array:
        columns = gate.shape[-1]
        out = numpy.empty(gate.shape, numpy.float32)
        if out.size == 0:
            return out
        inputs = [self._rows(part) for part in (gate, up) if part is not None]
        pointers = [(self.ffi.cast("float *", self._address(part)), part.strides[0] // 4) for part in inputs]
        self._run(
            "activate",
            (
                KINDS[kind],
                *pointers[0],
                *(pointers[1] if up is not None else (self.ffi.NULL, 0)),
                out.size // columns,
                columns,
                self._floats(out),
            ),
            inputs=inputs,
            outputs=[out],
        )
        return out

    def rotate(self, x: Array, angles: tuple[Array, Array], kind: str) -> Array:
        """As `positions.rotate`: ``x`` [sequences, positions, heads, width], ``angles`` [positions, pairs] each."""
        sequences, length, heads, width = x.shape
        cosine, sine = (numpy.ascontiguousarray(part, numpy.float32) for part in angles)
        if cosine.shape != sine.shape or len(cosine) != length:
            raise ValueError(f"angles of shape {cosine.shape} and {sine.shape} for {length} positions")
        x, out = numpy.ascontiguousarray(x), numpy.empty(x.shape, numpy.float32)
        for one, turned in zip(x, out, strict=True):
            self._run(
                "rotate",
                (
                    self._floats(one),
                    length,
                    heads,
                    width,
                    cosine.shape[1],
                    kind != "norm",
                    self._floats(cosine),
                    self._floats(sine),
                    self._floats(turned),
                ),
                inputs=[one],
                outputs=[turned],
                held=(cosine, sine),
            )
        return out

    # ---- attention

    def attend(
        self,
        q: Array,
        k: Array,
        v: Array,
        *,
        scale: float,
        start: int,
        window: int = 0,
        cap: float = 0.0,
        sinks: Array | None = None,
    ) -> Array:
        return self.attend_all([q], [k], [v], scale=scale, start=start, window=window, cap=cap, sinks=sinks)[0]

    def attend_all(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        scale: float,
        start: int,
        window: int = 0,
        cap: float = 0.0,
        sinks: Array | None = None,
    ) -> Array:
        """`attend` of several sequences at once: [sequences, positions, heads, value width].

        Each of ``q``, ``k``, ``v`` is a sequence of arrays as `attend` takes them (or one array with one more
        dimension); the keys and values may be float32 or float16 and strided, contiguous in the last dimension.
        """
        positions, heads, width = q[0].shape
        out = numpy.empty((len(q), positions, heads, v[0].shape[-1]), numpy.float32)
        share = self._optional(sinks, heads)
        queries = [numpy.ascontiguousarray(one) for one in q]
        entries, held = [], [sinks]
        for query, keys, values, result in zip(queries, k, v, out, strict=True):
            entry, kept = self._attention(query, keys, values, result, start)
            entries.append({**entry, "window": window, "scale": scale, "cap": cap, "sinks": share})
            held += kept
        self._run("attend", entries, inputs=queries, outputs=[out], held=held)
        return out

    def store(self, x: Array, kind: tensor_types.TensorType, out: Array) -> None:
        sequences, length, heads, width = x.shape
        if out.shape != (sequences, heads, length, tensor_types.row_bytes(kind, width)) or out.strides[-1] != 1:
            raise ValueError(f"{x.shape} does not fit {out.shape} of {kind.name}")
        for one, place in zip(numpy.ascontiguousarray(x), out, strict=True):
            self._run(
                "store",
                (self._floats(one), length, heads, width, kind.id, self._address(place), *place.strides[:2]),
                inputs=[one],
                outputs=[],
                held=[place],
            )

    def _attention(self, q: Array, k: Array, v: Array, out: Array, start: int) -> tuple[dict[str, Any], list[Array]]:
        """Fields of a qc_attention, and the keys and values that its pointers need alive."""
        positions, heads, width = q.shape
        kv_heads, seen = k.shape[:2]
        if (
            k.dtype != v.dtype
            or k.shape[2] != width
            or v.shape[:2] != (kv_heads, seen)
            or seen < start + positions
            or heads % kv_heads
        ):
            raise ValueError(
                f"queries {q.shape} at {start} do not fit keys {k.dtype} {k.shape}, values {v.dtype} {v.shape}"
            )
        k, v = (x if x.strides[2] == x.itemsize else numpy.ascontiguousarray(x) for x in (k, v))
        if k.dtype not in (numpy.float32, numpy.float16):
            raise ValueError(f"keys of {k.dtype}")
        size, value_width = k.itemsize, v.shape[2]
        return {
            "q": self._floats(q),
            "q_token": heads * width,
            "q_head": width,
            "k": self._address(k),
            "k_head": k.strides[0] // size,
            "k_position": k.strides[1] // size,
            "v": self._address(v),
            "v_head": v.strides[0] // size,
            "v_position": v.strides[1] // size,
            "half": size == 2,
            "tokens": positions,
            "start": start,
            "heads": heads,
            "kv_heads": kv_heads,
            "width": width,
            "value_width": value_width,
            "out": self._floats(out),
            "out_token": heads * value_width,
            "out_head": value_width,
        }, [k, v]

    # ---- logits

    def log_softmax(self, logits: Array, scale: float = 1.0, cap: float = 0.0) -> Array:
        """Log-probabilities in place of float32 logits [..., vocabulary], which are scaled and capped before."""
        columns = logits.shape[-1]
        self._check(
            self.lib.qc_log_softmax(
                self.pool, self.isa, self._floats(logits), logits.size // max(columns, 1), columns, scale, cap
            )
        )
        return logits

    def divergence(self, base: Array, other: Array) -> tuple[Array, Array, Array]:
        """Of log-probabilities [rows, vocabulary]: KL divergence (float64), first argmax of each (int64)."""
        rows, columns = base.shape
        if other.shape != base.shape:
            raise ValueError(f"{base.shape} against {other.shape}")
        result = numpy.zeros(rows), numpy.zeros(rows, numpy.int64), numpy.zeros(rows, numpy.int64)
        kinds = ("double[]", "int64_t[]", "int64_t[]")
        pointers = [self.ffi.from_buffer(kind, part) for kind, part in zip(kinds, result, strict=True)]
        self._check(
            self.lib.qc_divergence(
                self.pool, self.isa, self._floats(base), self._floats(other), rows, columns, *pointers
            )
        )
        return result

    # ---- arrays and status

    def _optional(self, array: Array | None, count: int):
        return self.ffi.NULL if array is None else self._floats(array, count=count)

    def _address(self, array: Array):
        """A pointer to an array of any layout; the caller keeps it alive and inside its bounds."""
        return self.ffi.cast("void *", array.__array_interface__["data"][0])

    @staticmethod
    def _rows(array: Array) -> Array:
        """float32 rows side by side or with gaps: a slice of the last dimension is not copied."""
        if array.dtype != numpy.float32 or array.ndim != 2 or array.strides[1] != 4 or array.strides[0] < 0:
            return numpy.ascontiguousarray(array, numpy.float32).reshape(-1, array.shape[-1])
        return array

    def _floats(self, array: Array, *, count: int | None = None):
        """A pointer to a C-contiguous float32 array (of at least ``count`` elements)."""
        if array.dtype != numpy.float32 or not array.flags.c_contiguous or (count is not None and array.size < count):
            raise ValueError(
                f"need a C-contiguous float32 array of {count or array.size} elements, got {array.dtype} {array.shape}"
            )
        return self.ffi.from_buffer("float[]", array)

    @staticmethod
    def _check(status: int, type_id: int = 0) -> None:
        if status in (kernels.OVERFLOW, kernels.NON_FINITE):
            raise QuantcliError("keys or values of attention exceed the cache's type", hint="try --kv-type F32")
        if status == kernels.NO_MEMORY:
            raise QuantcliError("out of memory in a kernel of the runner", hint="use a smaller context or batch")
        if status != kernels.OK:
            raise NoKernel(
                f"this build cannot multiply {tensor_types.BY_ID[type_id].name}",
                hint="`quantcli formats` shows what it can",
            )
