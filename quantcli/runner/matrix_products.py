"""Products with packed weights in C: of all tokens with the same matrices, or each with those that it chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy

from quantcli.ggml import kernels, tensor_types
from quantcli.runner import memory
from quantcli.runner.arrays import Bytes, Floats, Ints
from quantcli.runner.operations import Operations
from quantcli.runner.steps import Entries, Fields, Pool, Recording, check
from quantcli.runner.weights import PackedMatrix


def can_multiply(type_id: int) -> bool:
    """Whether weights of this type can be multiplied as they are stored."""
    return bool(kernels.library()[1].qc_can_multiply(type_id))


class _Product(NamedTuple):
    """One product of a call, and the arrays behind its pointers."""

    type_id: int
    fields: Fields
    x: Floats
    out: Floats
    held: tuple[object, ...]


class MatrixProducts(Operations):
    """What `Products` multiplies with, and the pool of threads that does it."""

    def __init__(self, activations: str = "float", threads: int | None = None, isa: str | None = None) -> None:
        super().__init__(activations)
        memory.keep_freed()
        self.pool = Pool(activations, threads, isa)

    def recording(self) -> Recording:
        return Recording(self.pool)

    # ---- products

    def product(self, type_id: int, raw: Bytes, rows: int, x: Floats, out: Floats | None = None) -> Floats:
        """``x`` float32 [tokens, columns] times ``rows`` packed rows: float32 [tokens, rows]."""
        if out is None:
            out = numpy.empty((len(x), rows), numpy.float32)
        self._multiply([self._product_of(type_id, raw, rows, x, out)])
        return out

    def multiply(self, x: Floats, *weights: PackedMatrix) -> list[Floats]:
        results: list[Floats] = [numpy.empty((len(x), weight.rows), numpy.float32) for weight in weights]
        self._multiply([self._with(weight, 0, x, out) for weight, out in zip(weights, results, strict=True)])
        return results

    def multiply_experts(self, x: Floats, chosen: Ints, *weights: PackedMatrix, always: bool = False) -> list[Floats]:
        if len(chosen) == 1:
            return self._multiply_chosen(x.reshape(-1, x.shape[-1]), chosen, weights, always)
        order = numpy.argsort(chosen, axis=None, kind="stable")  # (token, slot) pairs, expert by expert
        used = chosen.shape[1]
        gathered = numpy.ascontiguousarray(x[order // used] if x.ndim == 2 else x.reshape(-1, x.shape[-1])[order])
        experts, starts = numpy.unique(chosen.reshape(-1)[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        results: list[Floats] = [numpy.empty((len(order), weight.rows), numpy.float32) for weight in weights]
        self._multiply(
            [
                self._with(weight, expert, gathered[start:stop], out[start:stop])
                for expert, start, stop in zip(experts.tolist(), starts.tolist(), stops, strict=True)
                for weight, out in zip(weights, results, strict=True)  # the same inputs side by side
            ]
        )
        scattered = []
        for out in results:
            result = numpy.empty_like(out)
            result[order] = out
            scattered.append(result.reshape(*chosen.shape, -1))
        return scattered

    def _multiply_chosen(self, x: Floats, chosen: Ints, weights: Sequence[PackedMatrix], always: bool) -> list[Floats]:
        """Of one token: ``x`` [1 or used, columns], ``chosen`` [1, used]. What a recording does again is told the
        places of the matrices that are chosen then."""
        used = chosen.shape[1]
        results: list[Floats] = [numpy.empty((used, weight.rows), numpy.float32) for weight in weights]
        products = [
            self._with(weight, expert, x[slot : slot + 1] if len(x) > 1 else x, out[slot : slot + 1])
            for slot, expert in enumerate(chosen[0].tolist())
            for weight, out in zip(weights, results, strict=True)  # the same inputs side by side
        ]
        entries = self.pool.entries("qc_product", [product.fields for product in products])
        if not always:
            places = [self.pool.pointers(entries, "qc_product", name).reshape(used, -1) for name in ("weights", "bias")]

            def choose(chosen: Ints) -> None:
                for number, weight in enumerate(weights):
                    for place, data in zip(places, (weight.data, weight.bias), strict=True):
                        if data is not None:
                            first = data.__array_interface__["data"][0]
                            place[:, number] = first + chosen[0] * data.strides[0]

            self.pool.note(choose, [chosen], None)
        self._run(products, entries)
        return [out[None] for out in results]

    def rounded(self, type_id: int, x: Floats) -> Floats:
        """``x`` float32 [tokens, columns] as products with weights of this type see it."""
        out, pool = numpy.empty_like(x), self.pool
        status = pool.lib.qc_round_activations(
            pool.handle, pool.isa, pool.activations, type_id, pool.floats(x), *x.shape, pool.floats(out)
        )
        check(status, type_id)
        return out

    def _with(self, weight: PackedMatrix, matrix: int, x: Floats, out: Floats) -> _Product:
        bias = None if weight.bias is None else weight.bias[matrix]
        return self._product_of(weight.type.id, weight.data[matrix], weight.rows, x, out, bias)

    def _product_of(
        self, type_id: int, raw: Bytes, rows: int, x: Floats, out: Floats, bias: Floats | None = None
    ) -> _Product:
        tokens, columns = x.shape
        data = self.pool.ffi.from_buffer("uint8_t[]", raw)
        expected = tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns) * rows
        if len(data) < expected:
            raise ValueError(f"{len(data)} bytes where {expected} are needed")
        if out.shape != (tokens, rows):
            raise ValueError(f"out has shape {out.shape}, not {(tokens, rows)}")
        fields = {
            "type": type_id,
            "weights": data,
            "rows": rows,
            "columns": columns,
            "x": self.pool.floats(x),
            "x_stride": columns,
            "tokens": tokens,
            "out": self.pool.floats(out),
            "out_stride": rows,
            "bias": self.pool.optional(bias, rows),
            "weight_bytes": len(data),
            "x_count": x.size,
            "out_count": out.size,
            "bias_count": 0 if bias is None else bias.size,
        }
        return _Product(type_id, fields, x, out, (raw, bias))

    def _multiply(self, products: Sequence[_Product]) -> None:
        self._run(products, [product.fields for product in products])

    def _run(self, products: Sequence[_Product], fields: Sequence[Fields] | Entries) -> None:
        if products:
            self.pool.run(
                "matmul",
                fields,
                inputs=[product.x for product in products],
                outputs=[product.out for product in products],
                held=[product.held for product in products],
                type_id=products[0].type_id,
            )
