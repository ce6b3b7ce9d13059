"""The type of every tensor: overrides first, then the recipe's rules, then the shape fallback.

The order of precedence is llama-quantize's. Two parts of it surprise: the running numbers that the rules use count only
tensors that reach the rules, and the types of --output-tensor-type and --token-embedding-type skip the shape fallback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from quantcli import architectures
from quantcli.architectures.fixed import is_matrix, quantizable, stays_float32
from quantcli.architectures.roles import COUNTED, role_of
from quantcli.container import Value
from quantcli.errors import BadConfig, IndivisibleRow, QuantcliError, UnknownTensors
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.model import Model, ModelTensor
from quantcli.plan.options import Options
from quantcli.plan.overrides import Override
from quantcli.plan.recipes import FileType, ModelFacts, Place

_LAYER = re.compile(r"blk\.(\d{1,9})\.", re.ASCII)


def _converted(tensor: ModelTensor, model: Model) -> bool:
    """Whether the converter's --outtype reaches this tensor of a checkpoint."""
    if model.default_float.name != "F32":
        return tensor.type == model.default_float
    # the model's own types cannot tell: F32 is what both the rules and the default say
    left = is_matrix(tensor.shape) and not stays_float32(tensor.name, len(tensor.shape))
    return tensor.type.name == "F32" and left


# ---- the model as the rules see it -----------------------------------------------------------------------------


def facts_of(names: Iterable[str], metadata: Mapping[str, Value], architecture: str, imatrix: bool) -> ModelFacts:
    """The facts about a model of these tensor names and this metadata."""

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{architecture}.{key}")
        if value is None:
            return default
        try:  # of per-layer values the rules look at layer 0
            return int(value.data[0] if hasattr(value.data, "__len__") else value.data)
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise BadConfig(f"metadata {architecture}.{key} is no number") from error

    names = list(names)
    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv", heads)
    layers, experts = number("block_count"), number("expert_count")
    known = architectures.find(architecture)
    class_70b = (layers - number("nextn_predict_layers") == known.layers_of_70b > 0 and experts != 8
                 and (not known.grouped_70b or heads != kv_heads))  # fmt: skip
    return ModelFacts(
        architecture=architecture, layers=layers, gqa=heads // kv_heads if kv_heads > 0 else 0, experts=experts,
        imatrix=imatrix, tied="output.weight" not in names,
        v_tensors=sum(role_of(name) == "v" for name in names if "attn_" in name), class_70b=class_70b,
        own_layers=layers - number("nextn_predict_layers"),
    )  # fmt: skip


@cache
def layer_of(name: str) -> int:
    """The layer number of ``blk.N. ...``, -1 for other names."""
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


# ---- one tensor after the other --------------------------------------------------------------------------------


class Choice(NamedTuple):
    """``type`` of a tensor; ``wanted`` before the shape fallback, where there was one; ``problem`` forbids writing."""

    type: TensorType
    wanted: TensorType | None = None
    problem: QuantcliError | None = None


def fit(wanted: TensorType, columns: int) -> TensorType:
    """``wanted`` or what takes its place for rows of ``columns`` weights. Raises IndivisibleRow."""
    if columns % wanted.block == 0:
        return wanted
    if wanted.fallback is None and wanted.block > 32:
        raise IndivisibleRow(
            f"{columns} columns are no multiple of {wanted.name}'s block of {wanted.block}, "
            "and nothing stands in for it",
            hint="choose another type for this tensor (--tensor-type)",
        )
    candidate = BY_NAME[wanted.fallback] if wanted.fallback else wanted
    return candidate if columns % candidate.block == 0 else BY_NAME["F16"]


@dataclass(eq=False, repr=False)
class Chooser:
    """Chooses types for the tensors of one model, in the order in which they are given.

    ``assignment`` has types for single tensors, by name, which take the place of what the recipe's rules choose.
    """

    model: Model
    options: Options
    facts: ModelFacts
    assignment: Mapping[str, TensorType] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    hits: dict[Override, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipe: FileType = self.options.file_type
        self.hits = dict.fromkeys(self.options.overrides, 0)
        self.unassigned: list[str] = []  # names in the assignment whose tensors get no target type

    def choose(self, tensor: ModelTensor) -> Choice:
        """The type of the next tensor."""
        assigned = tensor.name in self.assignment
        if tensor.targets is not None:
            wanted = tensor.targets.get(self.recipe.name, tensor.type)
            fitting = fit(wanted, tensor.columns)
            return Choice(fitting, wanted=None if fitting is wanted else wanted)
        if self.recipe.copies or not self._reached(tensor):
            self.unassigned += [tensor.name] * assigned
            return Choice(tensor.type)
        role = role_of(tensor.name, self.facts.architecture)
        final = self._final(tensor, role)
        if final is not None:
            self.unassigned += [tensor.name] * (assigned and self.recipe.is_float)
            return Choice(final, problem=_indivisible(tensor, final))
        wanted = self._override(tensor.name) or self._by_recipe(tensor, role)
        try:
            fitting = fit(wanted, tensor.columns)
        except IndivisibleRow as error:
            error.where = f"tensor {tensor.name}"
            return Choice(wanted, problem=error)
        return Choice(fitting, wanted=None if fitting is wanted else wanted)

    def _reached(self, tensor: ModelTensor) -> bool:
        """Whether the tensor gets a target type at all."""
        if self.options.leave_output_tensor and tensor.name == "output.weight":
            return False
        if self.recipe.is_float and self.model.follows_converter:
            return _converted(tensor, self.model)
        return quantizable(tensor.name, tensor.shape, self.facts.architecture)

    def _final(self, tensor: ModelTensor, role: str) -> TensorType | None:
        """The types that end the matter: no rules, no fallback."""
        options = self.options
        # The embedding of every layer may also be named by a pattern, which is then more exact.
        named = tensor.name == "per_layer_token_embd.weight" and self._override(tensor.name, count=False) is not None
        if role == "embedding" and options.token_embedding_type and not named:
            return options.token_embedding_type
        if role == "output" and options.output_tensor_type:
            return options.output_tensor_type
        return self.recipe.default_type if self.recipe.is_float else None

    def _override(self, name: str, count: bool = True) -> TensorType | None:
        for override in self.options.overrides:
            if override.matches(name):
                self.hits[override] += count
                return override.type
        return None

    def _by_recipe(self, tensor: ModelTensor, role: str) -> TensorType:
        """What the assignment says, or else the rules. The rules count a tensor whoever decides about it, so that an
        assignment changes the types of no other tensors."""
        recipe, facts = self.recipe, self.facts
        assigned = self.assignment.get(tensor.name)
        if self.options.pure:
            return assigned or recipe.default_type
        if role == "embedding" and facts.tied:
            if self.options.output_tensor_type:
                return self.options.output_tensor_type
            role = "output"
        place = Place(
            facts,
            self._index(tensor.name, role),
            facts.v_tensors if role == "v" else facts.layers,
            ragged=tensor.columns % recipe.default_type.block != 0,
            stacked=len(tensor.shape) > 2 and tensor.shape[2] > 1,
        )
        chosen = assigned or recipe.type_for(role, place)
        return max(chosen, self._least(place), key=lambda one: one.bpw) if self._drafts(tensor.name) else chosen

    def _drafts(self, name: str) -> bool:
        """Whether a tensor belongs to what predicts further tokens; quantizing it as far as others makes it useless."""
        return ".nextn." in name or 0 < self.facts.own_layers <= layer_of(name)

    def _least(self, place: Place) -> TensorType:
        """What the recipe takes for the last of attention's values."""
        count = max(self.facts.v_tensors, 1)
        return self.recipe.type_for("v", replace(place, index=count - 1, count=count, stacked=False))

    def _index(self, name: str, role: str) -> int:
        if role not in COUNTED:
            return 0
        if role != "v" and self.recipe.by_layer and self.facts.experts > 1:
            layer = layer_of(name)
            if not 0 <= layer < self.facts.layers:
                raise UnknownTensors(
                    f"{name} belongs to no layer 0 to {self.facts.layers - 1}",
                    where=self.model.name,
                    hint="the rules for expert models need the layer in the name; use --pure",
                )
            return layer
        index = self.counts[role]
        self.counts[role] += 1
        return index


def _indivisible(tensor: ModelTensor, tensor_type: TensorType) -> IndivisibleRow | None:
    if tensor.columns % tensor_type.block == 0:
        return None
    return IndivisibleRow(
        f"{tensor.columns} columns are no multiple of {tensor_type.name}'s block of {tensor_type.block}",
        where=f"tensor {tensor.name}",
        hint="--token-embedding-type and --output-tensor-type know no fallback: choose a type with blocks of 32",
    )
