"""An adapter merged into the tensors of its base, before any family sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from quantcli.errors import ShapeMismatch, UnknownTensors, UnsupportedFile
from quantcli.families import names
from quantcli.families.adapters.factors import factors_of
from quantcli.ggml.tensor_types import TensorType
from quantcli.sources import factors as beside
from quantcli.sources.adapter import Adapter, Module
from quantcli.sources.files import SourceFile, StoredTensor
from quantcli.sources.tensor import SourceTensor
from quantcli.views import Merged, Reader, Replaced

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """A tensor of the base with what the adapter makes of it; see `SourceTensor`. Its rows are float32."""

    base: SourceTensor
    view: Reader
    own_name: str | None = None  # where it stands beside its base

    @property
    def name(self) -> str:
        return self.own_name or self.base.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> str:
        return self.base.dtype  # what the checkpoint is stored as, which decides what its outputs default to

    @property
    def type(self) -> TensorType | None:
        return self.base.type and self.view.stored

    @property
    def file(self) -> SourceFile:
        return self.base.file

    @property
    def origin(self) -> str:
        return self.base.origin

    @property
    def where(self) -> str:
        return self.base.where

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        return self.view.read_rows(start, stop, out)

    def reader(self) -> Reader:
        return self.view

    @property
    def exact(self) -> None:
        """What is read is what is meant."""

    @property
    def factors(self) -> beside.Factors:
        return beside.NO_FACTORS


class _Base:
    """The tensors of the base by name; a name counts as well without what wrappers put before it."""

    def __init__(self, tensors: Sequence[SourceTensor]) -> None:
        self._exact = {tensor.name: tensor for tensor in tensors}
        self._plain: dict[str, SourceTensor] = {}
        for tensor in tensors:
            self._plain.setdefault(names.plain(tensor.name, ())[0], tensor)

    def untied(self, name: str) -> SourceTensor | None:
        """A head of its own where the embeddings are the head as well and ``name`` is that of a head."""
        if not name.endswith(_HEADS):
            return None
        embeddings = next((one for name, one in self._exact.items() if name.endswith(_EMBEDDINGS)), None)
        return embeddings and MergedTensor(embeddings, embeddings.exact or embeddings.reader(), name)

    def find(self, name: str) -> SourceTensor | None:
        return self._exact.get(name) or self._plain.get(names.plain(name, ())[0])


def merged(tensors: Sequence[SourceTensor], adapter: Adapter, scale: float) -> list[SourceTensor]:
    """``tensors`` with the adapter's changes, in their order. ``scale`` multiplies every product of factors.

    Whole tensors and single rows of the adapter take the place of the base's. Where the embeddings are the head as well
    and it is adapted or saved by itself, the head becomes a tensor of its own. Raises UnknownTensors, ShapeMismatch,
    UnsupportedFile, naming the tensor.
    """
    base = _Base(tensors)
    named = [*(f"{one}.weight" for one in adapter.modules), *adapter.whole]
    heads = [head for name in named if not base.find(name) if (head := base.untied(name))]
    tensors = [*tensors, *heads]
    base = _Base(tensors)
    changed: dict[str, SourceTensor] = {}
    steps: list[tuple[str, StoredTensor, Callable[[SourceTensor], Reader]]] = [
        *((name, tensor, _whole(tensor)) for name, tensor in adapter.whole.items()),
        *((f"{name}.weight", tensor, _rows(adapter, name, tensor)) for name, tensor in adapter.tokens.items()),
        *((f"{one.name}.weight", one.a, _product(adapter, one, scale)) for one in adapter.modules.values()),
        *(
            (f"{one.name}.bias", one.parts["lora_B.bias"], _bias(adapter, one, scale))
            for one in adapter.modules.values()
            if "lora_B.bias" in one.parts
        ),
    ]
    missing = [name for name, _, _ in steps if base.find(name) is None]
    if missing:
        raise UnknownTensors(
            f"the adapter changes {len(missing)} tensors that its base does not have: {', '.join(missing[:5])}",
            where=str(adapter.folder),
            hint="is this the model that the adapter was trained on?",
        )
    for name, _, step in steps:
        found = base.find(name)
        assert found is not None
        current = changed.get(found.name, found)
        changed[found.name] = MergedTensor(found, step(current))
    return [changed.get(tensor.name, tensor) for tensor in tensors]


def _whole(tensor: StoredTensor) -> Callable[[SourceTensor], Reader]:
    def step(base: SourceTensor) -> Reader:
        if tensor.shape != base.shape:
            grown = len(base.shape) == 2 and tensor.shape[1:] == base.shape[1:] and tensor.shape[0] > base.shape[0]
            new = f" ({tensor.shape[0] - base.shape[0]} new tokens)" if grown else ""
            raise ShapeMismatch(
                f"has the shape {list(tensor.shape)}, the base's {base.name} {list(base.shape)}{new}",
                where=tensor.where,
                hint="new tokens need a base with as many rows: resize and merge with the package peft",
            )
        return tensor.reader()

    return step


def _rows(adapter: Adapter, name: str, tensor: StoredTensor) -> Callable[[SourceTensor], Reader]:
    def step(base: SourceTensor) -> Reader:
        places = adapter.token_indices(name)
        if len(tensor.shape) != 2 or tensor.shape != (len(places), base.shape[-1]):
            raise ShapeMismatch(
                f"has the shape {list(tensor.shape)}, {len(places)} rows of {base.shape[-1]} are expected",
                where=tensor.where,
                hint="trainable_token_indices does not belong to these tensors: get the adapter again",
            )
        if places and max(places) >= base.shape[0]:
            raise ShapeMismatch(
                f"token {max(places)} is beyond the base's {base.shape[0]}",
                where=tensor.where,
                hint="is this the model that the adapter was trained on?",
            )
        return Replaced(base.exact or base.reader(), tensor.reader(), numpy.asarray(places, numpy.intp))

    return step


def _product(adapter: Adapter, module: Module, scale: float) -> Callable[[SourceTensor], Reader]:
    def step(base: SourceTensor) -> Reader:
        factors = factors_of(module, adapter.settings.transposed)
        if base.shape != factors.shape:
            raise ShapeMismatch(
                f"the adapter's product has the shape {list(factors.shape)}, {base.name} {list(base.shape)}",
                where=module.a.where,
                hint="is this the model that the adapter was trained on?",
            )
        length = _magnitude(adapter, module, factors.shape[0])
        return Merged(base.exact or base.reader(), factors.left, factors.right, adapter.scale(module) * scale, length)

    return step


def _magnitude(adapter: Adapter, module: Module, rows: int) -> NDArray[numpy.float64] | None:
    """The lengths of the rows that DoRA trains; None for a plain adapter."""
    stored = module.parts.get("lora_magnitude_vector")
    if stored is None:
        return None
    if module.embedding or adapter.settings.transposed or stored.rows * stored.columns != rows:
        raise UnsupportedFile(
            f"{module.name}: DoRA of a matrix that is stored transposed, or with other lengths than rows",
            where=stored.where,
            hint="merge it with the package peft first",
        )
    return stored.read_rows(0, stored.rows).ravel().astype(numpy.float64)


def _bias(adapter: Adapter, module: Module, scale: float) -> Callable[[SourceTensor], Reader]:
    from quantcli.views import Generated, Reshaped

    def step(base: SourceTensor) -> Reader:
        """A bias is a row: 1 x n, the product of the number 1 and the adapter's row."""
        bias = module.parts["lora_B.bias"]
        if bias.shape != base.shape:
            raise ShapeMismatch(
                f"has the shape {list(bias.shape)}, the base's {base.name} {list(base.shape)}",
                where=bias.where,
                hint="is this the model that the adapter was trained on?",
            )
        one = Generated([1.0])
        return Merged(
            base.exact or base.reader(), one, Reshaped(bias.reader(), bias.columns), adapter.scale(module) * scale
        )

    return step
