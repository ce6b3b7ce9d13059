"""The runner's operations in C: attention, norms, rotations, states, statistics; products are in matrix_products.py.

`Products` takes the place of the numpy reference (operations.py). It owns a pool of threads (steps.py); results do not
depend on their number. The instruction set is that of `quantcli.ggml.kernels` (QUANTCLI_SIMD).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.runner import state_products
from quantcli.runner.arrays import Bytes, Doubles, Floats, Ints, Reals
from quantcli.runner.matrix_products import MatrixProducts
from quantcli.runner.operations import Operations, xielu_numbers
from quantcli.runner.positions import AngleTable, Distances
from quantcli.runner.recurrence import Recurrence
from quantcli.runner.steps import AnyArray, check, room


class Products(MatrixProducts):
    """Operations in C. ``threads``: None for all processors. ``isa``: a name of `kernels.instruction_sets`, or None.

    Calls from several Python threads take turns. Not for use after fork().
    """

    # ---- elements

    def host(self, function: Callable[..., Any], *inputs: AnyArray) -> Any:
        made = function(*inputs)
        self.pool.note(function, inputs, made)
        return made

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        if weight.ndim > 1:
            found: Floats = self.host(lambda x: Operations.rms_norm(self, x, weight, eps), x)
            return found
        return self._norm("rms_norm", x, weight, None, eps)

    def layer_norm(self, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        if weight.ndim > 1:  # every head has weights of its own
            found: Floats = self.host(lambda x: Operations.layer_norm(self, x, weight, bias, eps), x)
            return found
        return self._norm("layer_norm", x, weight, bias, eps)

    def _norm(self, name: str, x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
        if weight.size != x.shape[-1] or (bias is not None and bias.size != x.shape[-1]):
            raise ValueError(f"a norm of {x.shape[-1]} elements with weights {weight.shape}")
        out: Floats = numpy.empty(x.shape, numpy.float32)
        x = numpy.ascontiguousarray(x)
        columns = x.shape[-1]
        fields = {
            "x": self.pool.floats(x),
            "rows": x.size // max(columns, 1),
            "columns": columns,
            "weight": self.pool.floats(weight, columns),
            "bias": self.pool.optional(bias, columns),
            "eps": eps,
            "out": self.pool.floats(out),
            "x_count": x.size,
            "weight_count": weight.size,
            "bias_count": 0 if bias is None else bias.size,
            "out_count": out.size,
        }
        self.pool.run(name, fields, inputs=[x], outputs=[out], held=(weight, bias))
        return out

    def add(self, x: Floats, y: Floats, scale: float = 1.0) -> Floats:
        if x.shape != y.shape:
            raise ValueError(f"{x.shape} plus {y.shape}")
        out: Floats = numpy.empty(x.shape, numpy.float32)
        fields = {
            "x": self.pool.floats(x),
            "y": self.pool.floats(y),
            "scale": scale,
            "count": x.size,
            "out": self.pool.floats(out),
        }
        self.pool.run("add", fields, inputs=[x, y], outputs=[out])
        return out

    def activate(self, kind: str, gate: Floats, up: Floats | None, parameters: tuple[float, ...] = ()) -> Floats:
        columns = gate.shape[-1]
        out: Floats = numpy.empty(gate.shape, numpy.float32)
        if out.size == 0:
            return out
        gate = _side_by_side(gate)
        up = None if up is None else _side_by_side(up)
        inputs = [gate] if up is None else [gate, up]
        if parameters:  # in the place of up; no other step has made them
            up = xielu_numbers(*parameters).reshape(1, -1)
        fields = {
            "kind": getattr(self.pool.lib, f"QC_{kind.upper()}"),
            "gate": self.pool.address(gate, "float *"),
            "gate_stride": gate.strides[0] // 4,
            "up": self.pool.ffi.NULL if up is None else self.pool.address(up, "float *"),
            "up_stride": 0 if up is None else up.strides[0] // 4,
            "rows": out.size // columns,
            "columns": columns,
            "out": self.pool.floats(out),
            "gate_count": room(gate) // gate.itemsize,
            "up_count": 0 if up is None else room(up) // up.itemsize,
            "out_count": out.size,
        }
        self.pool.run("activate", fields, inputs=inputs, outputs=[out], held=[up])
        return out

    def rotate(self, x: Floats, angles: AngleTable, kind: str) -> Floats:
        """As `positions.rotate`: ``x`` [sequences, positions, heads, width], ``angles`` [positions, pairs] each."""
        sequences, length, heads, width = x.shape
        cosine, sine = (numpy.ascontiguousarray(part, numpy.float32) for part in angles)
        if cosine.shape != sine.shape or len(cosine) != length:
            raise ValueError(f"angles of shape {cosine.shape} and {sine.shape} for {length} positions")
        if sequences > 1:  # one call for all: every sequence has the same positions
            cosine, sine = (numpy.tile(part, (sequences, 1)) for part in (cosine, sine))
        x = numpy.ascontiguousarray(x)
        out: Floats = numpy.empty(x.shape, numpy.float32)
        fields = {
            "x": self.pool.floats(x),
            "positions": sequences * length,
            "heads": heads,
            "width": width,
            "pairs": cosine.shape[1],
            "neox": kind != "norm",
            "cosines": self.pool.floats(cosine),
            "sines": self.pool.floats(sine),
            "out": self.pool.floats(out),
            "x_count": x.size,
            "angle_count": min(room(part) // part.itemsize for part in (cosine, sine)),
            "out_count": out.size,
        }
        self.pool.run("rotate", fields, inputs=[x], outputs=[out], held=(cosine, sine))
        return out

    # ---- attention

    def store(self, x: Floats, tensor_type: TensorType, out: Bytes) -> None:
        sequences, length, heads, width = x.shape
        if out.shape != (sequences, heads, length, tensor_types.row_bytes(tensor_type, width)) or out.strides[-1] != 1:
            raise ValueError(f"{x.shape} does not fit {out.shape} of {tensor_type.name}")
        x = numpy.ascontiguousarray(x)
        if length == 1 and sequences > 1:  # sequences side by side are like positions; one alone may be recorded
            x, out = x.reshape(1, sequences, heads, width), out.transpose(2, 1, 0, 3)
        for one, place in zip(x, out, strict=True):
            fields = {
                "x": self.pool.floats(one),
                "positions": len(one),
                "heads": heads,
                "width": width,
                "type": tensor_type.id,
                "out": self.pool.address(place),
                "out_head": place.strides[0],
                "out_position": place.strides[1],
                "x_count": one.size,
                "out_bytes": room(place),
            }
            self.pool.run("store", fields, inputs=[one], outputs=[], held=[place])

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
        whole = self.attend_all(
            q[None], k[None], v[None], scale=scale, start=start, window=window, ahead=ahead, cap=cap, sinks=sinks,
            distances=distances,
        )  # fmt: skip
        return whole.reshape(whole.shape[1:])

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
        """`attend` of several sequences at once, in one call; keys and values without gaps in the last dimension."""
        sequences, positions, heads, _ = q.shape
        out: Floats = numpy.empty((sequences, positions, heads, v.shape[-1]), numpy.float32)
        if not out.size:
            return out
        q, k, v = numpy.ascontiguousarray(q), _contiguous_heads(k), _contiguous_heads(v)
        if not len(k) == len(v) == sequences:
            raise ValueError(f"{sequences} sequences of queries, {len(k)} of keys, {len(v)} of values")
        _check_attention(q[0], k[0], v[0], start)
        first = {
            **self._attention(q, k, v, out),
            "start": start,
            "window": window,
            "ahead": ahead,
            "scale": scale,
            "cap": cap,
            "sinks": self.pool.optional(sinks, heads),
            "sinks_count": 0 if sinks is None else sinks.size,
            **self._distances(distances, heads),
        }
        steps = {"q": q.strides[0], "k": k.strides[0], "v": v.strides[0], "out": out.strides[0]}
        entries = self.pool.repeated("qc_attention", first, sequences, steps)
        self.pool.run("attend", entries, inputs=[q], outputs=[out], held=(sinks, distances, k, v, first))
        return out

    def _distances(self, distances: Distances | None, heads: int) -> dict[str, object]:
        """Fields of a qc_attention."""
        if distances is None:
            return {"distances": self.pool.ffi.NULL, "distance_head": 0, "distance_zero": 0, "distance_count": 0}
        table = distances.table
        if len(table) != heads:
            raise ValueError(f"distances of {len(table)} heads, there are {heads}")
        return {
            "distances": self.pool.floats(table),
            "distance_head": table.shape[1],
            "distance_zero": distances.zero,
            "distance_count": table.size,
        }

    def _attention(self, q: Floats, k: Reals, v: Reals, out: Floats) -> dict[str, object]:
        """Fields of the first sequence's qc_attention: shapes, and strides in elements.

        The room for keys and values is the last sequence's, the least of them.
        """
        (positions, heads, width), value_width = q.shape[1:], v.shape[3]
        size, address = k.itemsize, self.pool.address
        return {
            "q": self.pool.floats(q),
            "q_token": heads * width,
            "q_head": width,
            "k": address(k),
            "k_head": k.strides[1] // size,
            "k_position": k.strides[2] // size,
            "v": address(v),
            "v_head": v.strides[1] // size,
            "v_position": v.strides[2] // size,
            "half": size == 2,
            "tokens": positions,
            "heads": heads,
            "kv_heads": k.shape[1],
            "width": width,
            "value_width": value_width,
            "out": self.pool.floats(out),
            "out_token": heads * value_width,
            "out_head": value_width,
            "q_count": q[0].size,
            "k_count": room(k[-1]) // size,
            "v_count": room(v[-1]) // size,
            "out_count": out[0].size,
        }

    # ---- layers with a state

    def convolve(self, x: Floats, window: Floats, kernel: Floats, bias: Floats | None, *, silu: bool) -> Floats:
        return state_products.convolve(self.pool, x, window, kernel, bias, silu)

    def recur(self, r: Recurrence) -> Floats:
        return state_products.recur(self.pool, r)

    def gates(self, forget: Floats, write: Floats | None, bias: Floats, rate: Floats) -> tuple[Floats, Floats]:
        return state_products.gates(self.pool, forget, write, bias, rate)

    def scan(
        self, x: Floats, step: Floats, rate: Floats, key: Floats, query: Floats, skip: Floats, state: Floats
    ) -> Floats:
        return state_products.scan(self.pool, x, step, rate, key, query, skip, state)

    # ---- logits

    def log_softmax(self, logits: Floats, scale: float = 1.0, cap: float = 0.0) -> Floats:
        """Log-probabilities in place of float32 logits [..., vocabulary], which are scaled and capped before."""
        columns, pool = logits.shape[-1], self.pool
        rows = logits.size // max(columns, 1)
        check(pool.lib.qc_log_softmax(pool.handle, pool.isa, pool.floats(logits), rows, columns, scale, cap))
        return logits

    def divergence(self, base: Floats, other: Floats) -> tuple[Doubles, Ints, Ints]:
        """Of log-probabilities [rows, vocabulary]: KL divergence (float64), first argmax of each (int64)."""
        rows, columns = base.shape
        if other.shape != base.shape:
            raise ValueError(f"{base.shape} against {other.shape}")
        pool = self.pool
        result = numpy.zeros(rows), numpy.zeros(rows, numpy.int64), numpy.zeros(rows, numpy.int64)
        kinds = ("double[]", "int64_t[]", "int64_t[]")
        pointers = [pool.ffi.from_buffer(kind, part) for kind, part in zip(kinds, result, strict=True)]
        check(
            pool.lib.qc_divergence(
                pool.handle, pool.isa, pool.floats(base), pool.floats(other), rows, columns, *pointers
            )
        )
        return result


def _side_by_side(array: Floats) -> Floats:
    """float32 rows side by side or with gaps: a slice of the last dimension is not copied."""
    if array.dtype != numpy.float32 or array.ndim != 2 or array.strides[1] != 4 or array.strides[0] < 0:
        return numpy.ascontiguousarray(array, numpy.float32).reshape(-1, array.shape[-1])
    return array


def _contiguous_heads(array: Reals) -> Reals:
    """Keys or values whose innermost dimension has no gaps."""
    return array if array.strides[-1] == array.itemsize else numpy.ascontiguousarray(array)


def _check_attention(q: Floats, k: Reals, v: Reals, start: int) -> None:
    """The C side trusts its pointers: a caller's mistake must end here."""
    positions, heads, width = q.shape
    kv_heads, seen = k.shape[:2]
    fit = k.dtype == v.dtype and k.shape[2] == width and v.shape[:2] == (kv_heads, seen)
    if not fit or seen < start + positions or heads % kv_heads:
        raise ValueError(
            f"queries {q.shape} at {start} do not fit keys {k.dtype} {k.shape}, values {v.dtype} {v.shape}"
        )
    if k.dtype not in (numpy.float32, numpy.float16):
        raise ValueError(f"keys of {k.dtype}")
