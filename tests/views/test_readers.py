"""Row views against numpy on the whole tensor: any slab, any order, any dtype."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy
import pytest

from quantcli.errors import ShapeMismatch
from quantcli.families import transforms as t
from quantcli.families.facts import Facts
from quantcli.families.transforms import Node
from quantcli.ggml import kernels, tensor_types
from quantcli.views import Stacked, Stored, Transposed, transpose

FACTS = Facts({}, lambda name: None)
FACTS.update(heads=4, kv_heads=2, head_dim=6, group=2, experts=3, ff=5, columns=7, start=5)


def source(*shape: int, dtype: str = "F32", limit: int | None = None) -> tuple[Node, numpy.ndarray]:
    """A node over 0, 1, 2 ... as ``dtype``; reading more than ``limit`` bytes at a time is an error."""
    values = numpy.arange(math.prod(shape), dtype=numpy.float32).reshape(shape)
    raw = values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    columns = shape[-1]

    def read_bytes(start: int, stop: int, out: memoryview | None = None) -> bytes | memoryview:
        assert limit is None or stop - start <= limit
        if out is None:
            return raw[start:stop]
        out[: stop - start] = raw[start:stop]
        return out

    def read_rows(start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        found = values.reshape(-1, columns)[start:stop]
        if out is None:
            return found.copy()
        out[:] = found
        return out

    rows = math.prod(shape[:-1])
    tensor = SimpleNamespace(rows=rows, columns=columns, read_bytes=read_bytes, read_rows=read_rows)
    return Node(shape, Stored(tensor, tensor_types.BY_NAME[dtype])), values


def check(node: Node, wanted: numpy.ndarray) -> None:
    """All slabs of some sizes and rows in a random order, as values and as bytes."""
    assert node.shape == wanted.shape
    flat = wanted.reshape(1, -1) if wanted.ndim == 1 else wanted.reshape(-1, wanted.shape[-1])
    assert (node.reader.rows, node.reader.columns) == flat.shape
    for step in (1, 3, 4, flat.shape[0]):
        for start in range(0, flat.shape[0], step):
            stop = min(start + step, flat.shape[0])
            out = numpy.empty((stop - start, flat.shape[1]), numpy.float32)
            assert node.reader.read_rows(start, stop, out) is out
            assert numpy.array_equal(out, flat[start:stop])
            assert numpy.array_equal(node.reader.read_rows(start, stop), flat[start:stop])
            if node.reader.raw:
                kind = {"F32": "<f4", "F16": "<f2"}[node.reader.stored.name]
                assert bytes(node.reader.read_raw(start, stop)) == flat[start:stop].astype(kind).tobytes()
    if node.reader.raw:
        order = numpy.random.default_rng(1).permutation(flat.shape[0])
        kind = {"F32": "<f4", "F16": "<f2"}[node.reader.stored.name]
        assert node.reader.gather(order).tobytes() == flat[order].astype(kind).tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_permuted(dtype: str) -> None:
    node, x = source(24, 7, dtype=dtype)
    check(t.permuted("heads").apply(node, FACTS), x.reshape(4, 2, 3, 7).swapaxes(1, 2).reshape(24, 7))
    node, x = source(24, dtype=dtype)
    check(t.permuted("kv_heads").apply(node, FACTS), x.reshape(2, 2, 6).swapaxes(1, 2).reshape(24))


def test_row_ranges_and_steps() -> None:
    node, x = source(12, 7)
    check(t.rows("start", "start+4").apply(node, FACTS), x[5:9])
    check(t.regrouped((-1,), pick={0: (1, 12, 2)}).apply(node, FACTS), x[1::2])
    node, x = source(12)
    check(t.rows(3, 8).apply(node, FACTS), x[3:8])


def test_regrouped_heads() -> None:
    node, x = source(72, 7)
    grid = ("heads", 3, "head_dim")
    check(t.regrouped(grid, order=(1, 0, 2)).apply(node, FACTS), x.reshape(4, 3, 6, 7).swapaxes(0, 1).reshape(72, 7))
    grid = ("kv_heads", "group+2", "head_dim")
    step = t.joined(
        t.regrouped(grid, pick={1: (0, "group", 1)}),
        t.regrouped(grid, pick={1: ("group", "group+1", 1)}),
        t.regrouped(grid, pick={1: ("group+1", "group+2", 1)}),
    )
    for shape in ((48, 7), (48,)):
        node, x = source(*shape)
        parts = x.reshape(2, 4, 6, *shape[1:])
        wanted = [parts[:, :2].reshape(24, *shape[1:]), parts[:, 2].reshape(12, *shape[1:])]
        check(step.apply(node, FACTS), numpy.concatenate([*wanted, parts[:, 3].reshape(12, *shape[1:])]))


@pytest.mark.parametrize("shape", [(12, 7), (3, 4, 9), (2, 1, 5)])
def test_transposed(shape: tuple[int, ...]) -> None:
    node, x = source(*shape, dtype="F16")
    check(t.transposed().apply(node, FACTS), x.swapaxes(-1, -2))


def test_transposed_then_split_by_parity() -> None:
    node, x = source(3, 7, 10)
    odd, even = (t.regrouped(("experts", "ff", 2), pick={2: (i, i + 1, 1)}) for i in (1, 0))
    step = t.transposed() | odd | t.shaped("experts", "ff", "columns")
    check(step.apply(node, FACTS), x.swapaxes(1, 2)[:, 1::2])
    node, x = source(3, 10)
    step = t.shaped("experts*2*ff", 1) | even | t.shaped("experts", "ff")
    check(step.apply(node, FACTS), x[:, 0::2])


def test_a_transpose_reads_bands_not_the_matrix() -> None:
    """Two output rows of a wide matrix: every read takes two elements of one row."""
    node, x = source(20, 1000, limit=8)
    assert numpy.array_equal(t.transposed().apply(node, FACTS).reader.read_rows(500, 502), x.T[500:502])


def test_a_permutation_reads_its_head_only() -> None:
    node, x = source(24, 40000, limit=6 * 40000 * 4)
    found = t.permuted("heads").apply(node, FACTS).reader.read_rows(6, 12)
    assert numpy.array_equal(found, x[6:12].reshape(2, 3, -1).swapaxes(0, 1).reshape(6, -1))


def test_far_rows_are_read_apart() -> None:
    node, x = source(1000, 500, limit=500 * 4)
    assert node.reader.gather(numpy.array([990, 3, 990])).tobytes() == x[[990, 3, 990]].tobytes()


def test_stacked() -> None:
    parts = [source(4, 7) for _ in range(3)]
    reader = Stacked([node.reader for node, _ in parts])
    check(Node((3, 4, 7), reader), numpy.stack([x for _, x in parts]))


def test_values_are_changed() -> None:
    node, x = source(24)
    check(t.plus_one().apply(node, FACTS), x + 1)
    node, x = source(3, 8)
    wanted = numpy.array([[-math.exp(v) for v in row] for row in x.tolist()]).astype(numpy.float32)
    check(t.negative_exp().apply(node, FACTS), wanted)
    assert not t.negative_exp().apply(node, FACTS).reader.raw


def test_a_grid_that_does_not_fit() -> None:
    node, _ = source(10, 7)
    with pytest.raises(ShapeMismatch, match="10 rows"):
        t.permuted("heads").apply(node, FACTS)


def test_transposed_twice_is_the_same_view() -> None:
    node, _ = source(3, 7, 10, dtype="F16")
    once = transpose(node.reader, 3)
    assert isinstance(once, Transposed) and transpose(once, 3) is node.reader
    assert isinstance(transpose(once, 1), Transposed)  # other matrices: nothing to undo


def test_blocks_are_decoded_to_be_transposed() -> None:
    """Q8_0 has no single elements: the transpose has float32, whatever slab is read."""
    values = numpy.random.default_rng(3).normal(size=(4, 64)).astype(numpy.float32)
    raw = kernels.encode(tensor_types.BY_NAME["Q8_0"].id, values).tobytes()
    tensor = SimpleNamespace(rows=4, columns=64, read_bytes=lambda start, stop, out=None: raw[start:stop])
    blocks = Stored(tensor, tensor_types.BY_NAME["Q8_0"])
    wanted = kernels.decode(tensor_types.BY_NAME["Q8_0"].id, raw, 4, 64)
    view = transpose(blocks, 2)
    assert not view.raw and view.stored.name == "F32" and (view.rows, view.columns) == (128, 2)
    check(Node((128, 2), view), wanted.reshape(2, 2, 64).swapaxes(1, 2).reshape(128, 2))
    assert transpose(view, 2) is blocks
