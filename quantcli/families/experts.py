"""Stacked experts of checkpoints: one tensor for all experts of a layer, with gate and up in one or apart.

The same weights are stored in several layouts: one matrix per expert (as families declare them), or stacks
[experts, rows, columns] under a name without a number, gate rows above up rows in ``gate_up_proj``; and every stack
may hold the transpose of each matrix. A stack becomes the matrices of the unstacked checkpoint, as views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from quantcli.errors import ShapeMismatch
from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts
from quantcli.ggml.tensor_types import TensorType
from quantcli.sources.factors import Factors
from quantcli.sources.files import SourceFile
from quantcli.sources.tensor import SourceTensor
from quantcli.views import Reader

_EXPERT = "experts.{expert}."
_PLACES = ("experts.", "switch_mlp.")  # where stacks stand, below the block that holds the experts
_DIRECT = ("input_linear", "output_linear")  # those that stand in the block itself
# The name of a stack -> the roles that it holds, one below the other.
_STACKS: Mapping[str, tuple[str, ...]] = {
    "gate_up_proj": ("gate", "up"), "input_linear": ("gate", "up"), "gate_proj": ("gate",), "w1": ("gate",),
    "up_proj": ("up",), "w3": ("up",), "down_proj": ("down",), "output_linear": ("down",), "w2": ("down",),
}  # fmt: skip
# Other names of one expert's matrices.
_MATRICES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


@dataclass(slots=True, eq=False, repr=False)
class Expert:
    """One expert's matrix in a stack, by the name of the unstacked checkpoint; see `SourceTensor`."""

    name: str
    shape: tuple[int, ...]
    stack: SourceTensor
    view: Reader
    exact: Reader | None = None

    @property
    def factors(self) -> Factors:
        return self.stack.factors

    @property
    def dtype(self) -> str:
        return self.stack.dtype

    @property
    def type(self) -> TensorType | None:
        return self.stack.type and self.view.stored

    @property
    def file(self) -> SourceFile:
        return self.stack.file

    @property
    def origin(self) -> str:
        return self.stack.origin

    @property
    def where(self) -> str:
        return self.stack.where

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32."""
        return self.view.read_rows(start, stop, out)

    def reader(self) -> Reader:
        return self.view


class _Stack(NamedTuple):
    """A stack's matrices, one below the other: the declared name of each with {layer} filled in, and its rows."""

    names: tuple[str, ...]
    heights: tuple[int, ...]
    shape: tuple[int, int, int]  # not transposed

    @property
    def transposed(self) -> tuple[int, int, int]:
        return self.shape[0], self.shape[2], self.shape[1]


class Stacks:
    """What a family's rules say about stacks; empty for families without experts."""

    def __init__(self, rules: Iterable[TensorRule], facts: Facts) -> None:
        self._facts = facts
        self._roles: dict[str, dict[str, TensorRule]] = {}  # block -> role -> rule
        for rule in rules:
            block, found, _ = rule.source.partition(_EXPERT)
            if found:
                self._roles.setdefault(block, {})[rule.target.removesuffix("_exps").rpartition("_")[2]] = rule
        self._votes: set[bool] = set()  # whether stacks of this checkpoint are transposed, where their shapes tell
        self._known: dict[tuple[str, str], TensorRule | None] = {}  # by the block of a layer and the role

    def look_at(self, name: str, tensor: SourceTensor) -> None:
        """Take note of a tensor's layout: shapes that fit both ways are read as the others are."""
        stack = self._find(name)
        if stack and stack.shape != stack.transposed and tensor.shape in (stack.shape, stack.transposed):
            self._votes.add(tensor.shape == stack.transposed)

    def expert_name(self, name: str) -> str:
        """The declared name of one expert's matrix that goes by another one ("w1" for "gate_proj"); else ``name``."""
        parts = name.split(".")
        if not self._roles or len(parts) < 5 or parts[-1] != "weight" or parts[-2] not in _MATRICES:
            return name
        rule = self._rule(".".join(parts[:-4]) + ".", _MATRICES[parts[-2]]) if parts[-4] == "experts" else None
        return ".".join([*parts[:-2], rule.source.rpartition(".")[2], "weight"]) if rule else name

    def split(self, name: str, tensor: SourceTensor) -> Iterator[Expert] | None:
        """The matrices of a stack, by the names of the unstacked checkpoint; None for any other tensor.

        Raises ShapeMismatch where the stack has another shape than config.json asks for.
        """
        stack = self._find(name)
        return self._experts(stack, tensor) if stack else None

    def _experts(self, stack: _Stack, tensor: SourceTensor) -> Iterator[Expert]:
        from quantcli.views import Span, transpose

        if tensor.shape not in (stack.shape, stack.transposed):
            raise ShapeMismatch(
                f"has the shape {list(tensor.shape)}, config.json asks for {list(stack.shape)} or its transpose",
                where=tensor.where,
                hint="config.json does not belong to these weights, or the family differs from what it declares",
            )
        both = stack.shape == stack.transposed
        turned = self._votes == {True} if both else tensor.shape == stack.transposed
        count, height, width = stack.shape
        rows = transpose(tensor.reader(), count) if turned else tensor.reader()
        values = transpose(tensor.exact, count) if turned and tensor.exact else tensor.exact
        start = 0
        for name, own in zip(stack.names, stack.heights, strict=True):
            for expert in range(count):
                first = expert * height + start
                exact = Span(values, first, first + own) if values else None
                yield Expert(name.format(expert=expert), (own, width), tensor, Span(rows, first, first + own), exact)
            start += own

    def _find(self, name: str) -> _Stack | None:
        """The stack that a plain ``name`` stands for."""
        if not self._roles:
            return None
        before, _, last = name.removesuffix(".weight").rpartition(".")
        roles = _STACKS.get(last)
        place = (
            "" if last in _DIRECT else next((place for place in _PLACES if f".{before}.".endswith(f".{place}")), None)
        )
        if roles is None or place is None:
            return None
        rules = [rule for role in roles if (rule := self._rule(f"{before}.".removesuffix(place), role))]
        return self._stack(rules, name) if len(rules) == len(roles) else None

    def _rule(self, block: str, role: str) -> TensorRule | None:
        """The rule for ``role`` in the block of a layer ("layers.3.mlp.")."""
        key = block, role
        if key not in self._known:
            parts = block.split(".")
            found = (roles[role] for declared, roles in self._roles.items() if _same(declared.split("."), parts))
            self._known[key] = next(found, None)
        return self._known[key]

    def _stack(self, rules: list[TensorRule], name: str) -> _Stack:
        layer = next(part for part in name.split(".") if part.isdigit())
        shapes = [tuple(self._facts.size(size) for size in rule.shape) for rule in rules]
        names = tuple(rule.source.replace("{layer}", layer) + ".weight" for rule in rules)
        heights = tuple(shape[0] for shape in shapes)
        return _Stack(names, heights, (self._facts["experts"], sum(heights), prod(shapes[0][1:])))


def _same(declared: list[str], parts: list[str]) -> bool:
    """Whether the parts of a name are those of a declared one, with a number for {layer}."""
    return len(declared) == len(parts) and all(
        ours == theirs or (ours == "{layer}" and theirs.isascii() and theirs.isdigit() and len(theirs) < 8)
        for ours, theirs in zip(declared, parts, strict=True)
    )
