"""The transforms of a tensor's rows, each a small function that puts a lazy reader around another.

A transform takes a ``Node`` (a reader with its shape in torch order) and the facts. Symbolic dimensions are resolved
here, so that a family's table reads ``permuted("heads")``. Those that only move rows apply to a bias as well; those
that change values or transpose do not (``moves_rows``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy

from quantcli.errors import ShapeMismatch, UnsupportedTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantcli.families.facts import Facts
    from quantcli.views import Reader

Dimension = str | int
_SLAB = 1 << 22  # numbers that are looked at together
MERGE_HINT = "merge the adapter into its base instead: quantcli convert BASE -t TYPE --merge-lora ADAPTER"


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A tensor on its way: ``shape`` in torch order; ``reader`` shows it as [product of leading dims, last dim]."""

    shape: tuple[int, ...]
    reader: Reader


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Transform:
    """A named step; ``a | b`` is first a, then b.

    ``pair`` is the same for a matrix that is given as a product of two, left @ right; what moves rows needs none.
    """

    name: str
    apply: Callable[[Node, Facts], Node]
    moves_rows: bool = True
    pair: Callable[[Node, Node, Facts], tuple[Node, Node]] | None = None

    def __or__(self, other: Transform) -> Transform:
        def both(node: Node, facts: Facts) -> Node:
            return other.apply(self.apply(node, facts), facts)

        def factors(left: Node, right: Node, facts: Facts) -> tuple[Node, Node]:
            return other.factors(*self.factors(left, right, facts), facts)

        return Transform(f"{self.name} | {other.name}", both, self.moves_rows and other.moves_rows, factors)

    def factors(self, left: Node, right: Node, facts: Facts) -> tuple[Node, Node]:
        """The factors of the changed matrix, from those of the matrix. Raises UnsupportedTransform where none are."""
        if self.pair is not None:
            return self.pair(left, right, facts)
        if self.moves_rows:
            return self.apply(left, facts), right
        raise UnsupportedTransform(
            f"the matrix is changed in a way that no adapter can follow ({self.name})",
            hint=MERGE_HINT,
        )


def regrouped(
    grid: tuple[Dimension, ...],
    order: tuple[int, ...] | None = None,
    pick: Mapping[int, tuple[Dimension, Dimension, int]] | None = None,
) -> Transform:
    """Rows seen as a ``grid``; per axis (start, stop, step) of it may be picked; then the axes are reordered.

    One dimension of the grid may be -1. On a vector the elements are the rows. The result has all rows on one axis.
    """

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import Reshaped, Span, Strided

        vector = len(node.shape) == 1
        reader = Reshaped(node.reader, 1) if vector else node.reader
        dims = _whole_grid([facts.size(size) for size in grid], reader.rows)
        strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
        offset = 0
        for axis, (start, stop, step) in (pick or {}).items():
            start, stop = facts.size(start), facts.size(stop)
            offset += start * strides[axis]
            dims[axis], strides[axis] = -(-(stop - start) // step), strides[axis] * step
        axes = order or range(len(dims))
        dims, strides = [dims[axis] for axis in axes], [strides[axis] for axis in axes]
        count = math.prod(dims)
        if len(dims) == 1 and strides == [1]:
            view: Reader = Span(reader, offset, offset + count)
        else:
            view = Strided(reader, dims, strides, offset)
        return Node((count,), Reshaped(view, count)) if vector else Node((count, node.reader.columns), view)

    return Transform("regrouped", apply)


def _whole_grid(dims: list[int], rows: int) -> list[int]:
    known = math.prod(size for size in dims if size >= 0)
    dims = [rows // known if size < 0 else size for size in dims]
    if math.prod(dims) != rows:
        raise ShapeMismatch(
            f"{rows} rows cannot be seen as {' x '.join(map(str, dims))}",
            hint="head counts and head_dim in config.json do not fit these weights",
        )
    return dims


def permuted(heads: str) -> Transform:
    """Each head's rows from the half-split to the interleaved rotary layout: new row 2i + b = old row b * half + i."""
    return replace(regrouped((heads, 2, -1), order=(0, 2, 1)), name=f"permuted({heads})")


def rows(start: Dimension, stop: Dimension) -> Transform:
    """Rows ``start`` to ``stop``."""
    return replace(regrouped((-1,), pick={0: (start, stop, 1)}), name=f"rows({start}:{stop})")


def shaped(*dims: Dimension) -> Transform:
    """The same elements in another shape."""

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import Reshaped

        shape = tuple(facts.size(size) for size in dims)
        same = shape[-1] == node.reader.columns
        return replace(node, shape=shape, reader=node.reader if same else Reshaped(node.reader, shape[-1]))

    def rows_alone(left: Node, right: Node, facts: Facts) -> tuple[Node, Node]:
        if len(dims) != 2 or facts.size(dims[-1]) != right.shape[-1]:
            raise UnsupportedTransform("the matrix gets another shape, which no adapter can follow", hint=MERGE_HINT)
        return left, right

    return Transform("shaped", apply, moves_rows=False, pair=rows_alone)


def transposed() -> Transform:
    """The last two dimensions exchanged."""

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import transpose

        *lead, height, width = node.shape
        return Node((*lead, width, height), transpose(node.reader, math.prod(lead)))

    def exchange(left: Node, right: Node, facts: Facts) -> tuple[Node, Node]:
        return apply(right, facts), apply(left, facts)

    return Transform("transposed", apply, moves_rows=False, pair=exchange)


def joined(*parts: Transform) -> Transform:
    """The results of several transforms of the same tensor, one below the other."""

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import Reshaped, Stacked

        nodes = [part.apply(node, facts) for part in parts]
        count = sum(one.shape[0] for one in nodes)
        if len(node.shape) == 1:
            return Node((count,), Reshaped(Stacked([Reshaped(one.reader, 1) for one in nodes]), count))
        return Node((count, *nodes[0].shape[1:]), Stacked([one.reader for one in nodes]))

    def on_rows(left: Node, right: Node, facts: Facts) -> tuple[Node, Node]:
        if not all(part.moves_rows for part in parts):
            raise UnsupportedTransform(
                "the matrix is joined from changed ones, which no adapter can follow", hint=MERGE_HINT
            )
        return apply(left, facts), right

    return Transform("joined", apply, pair=on_rows)


def on_columns(transform: Transform) -> Transform:
    """What ``transform`` does to rows, done to the columns of a matrix."""
    return replace(transposed() | transform | transposed(), name=f"on_columns({transform.name})")


def plus(offset: float) -> Transform:
    """A number is added, in float32."""

    def add(values: NDArray[numpy.float32]) -> None:
        values += numpy.float32(offset)

    return _mapped(f"plus({offset:g})", add)


def plus_one() -> Transform:
    """1 is added (norms that are stored as the difference to 1)."""
    return plus(1)


def centred() -> Transform:
    """The mean is taken away, in float32."""

    def change(values: NDArray[numpy.float32]) -> None:
        values -= values.mean(dtype=numpy.float32)

    return _mapped("centred", change)


def scaled(*factors: str) -> Transform:
    """Multiplied by the facts named, one after another, each product rounded to float32.

    A fact may be a function (layer) -> number, or None, which counts as 1.
    """

    def apply(node: Node, facts: Facts) -> Node:
        found = [facts[name](facts.layer) if callable(facts[name]) else facts[name] for name in factors]
        numbers = [numpy.float32(factor) for factor in found if factor is not None]

        def multiply(values: NDArray[numpy.float32]) -> None:
            for number in numbers:
                values *= number

        return _mapped("scaled", multiply).apply(node, facts) if numbers else node

    return Transform(f"scaled({', '.join(factors)})", apply, moves_rows=False, pair=_on_left(apply))


def single(value: float) -> float:
    """Rounded to float32."""
    return float(numpy.float32(value))


def column_normed(offset: float) -> Transform:
    """Each column divided by its length over all rows, plus ``offset``."""

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import ColumnNormed

        return replace(node, reader=ColumnNormed(node.reader, offset))

    return Transform("column_normed", apply, moves_rows=False)


def zero_padded(rows: str) -> Transform:
    """Rows of zeros below, up to the fact ``rows`` of them."""

    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import Stacked, Zeros

        missing = facts.size(rows) - node.shape[0]
        if missing <= 0:
            return node
        below = Zeros(missing, node.reader.columns, node.reader.stored)
        return replace(node, shape=(facts.size(rows), *node.shape[1:]), reader=Stacked([node.reader, below]))

    return Transform(f"zero_padded({rows})", apply, moves_rows=False, pair=_on_left(apply))


def negative_exp() -> Transform:
    """-exp(x), in double through ``math`` and rounded: the same on every CPU."""

    def change(values: NDArray[numpy.float32]) -> None:
        values.flat[:] = [-math.exp(value) for value in values.ravel().tolist()]

    return _mapped("negative_exp", change)


def _on_left(apply: Callable[[Node, Facts], Node]) -> Callable[[Node, Node, Facts], tuple[Node, Node]]:
    """A linear change of whole rows, done to the left factor."""
    return lambda left, right, facts: (apply(left, facts), right)


def _mapped(name: str, function: Callable[[NDArray[numpy.float32]], None]) -> Transform:
    def apply(node: Node, facts: Facts) -> Node:
        from quantcli.views import Mapped

        return replace(node, reader=Mapped(node.reader, function))

    return Transform(name, apply, moves_rows=False)


def ternary() -> Transform:
    """-1, 0 and 1 times the mean magnitude of the matrix (BitNet b1.58, arXiv 2402.17764, with the roundings of
    llama.cpp's converter). The mean is taken when the first rows are read."""

    def apply(node: Node, facts: Facts) -> Node:
        @cache
        def inverse() -> numpy.float32:
            step = max(1, _SLAB // node.reader.columns)
            starts = range(0, node.reader.rows, step)
            slabs = (node.reader.read_rows(start, min(start + step, node.reader.rows)) for start in starts)
            total = sum(float(numpy.abs(slab).sum(dtype=numpy.float64)) for slab in slabs)
            mean = numpy.float32(total / (node.reader.rows * node.reader.columns))
            return numpy.float32(1) / max(mean, numpy.float32(1e-5))

        def change(values: NDArray[numpy.float32]) -> None:
            values *= inverse()
            numpy.clip(numpy.rint(values, out=values), -1, 1, out=values)
            values /= inverse()

        return _mapped("ternary", change).apply(node, facts)

    return Transform("ternary", apply, moves_rows=False)
