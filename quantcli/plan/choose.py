"""The type of every tensor: overrides first, then the recipe's rules, then the shape fallback.

The order of precedence is llama-quantize's. Two parts of it surprise: the running numbers that the rules use count only
tensors that reach the rules, and the types of --output-tensor-type and --token-embedding-type skip the shape fallback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from quantcli.container import Value
from quantcli.errors import BadConfig, IndivisibleRow, QuantcliError, UnknownTensors
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.model import Model, ModelTensor
from quantcli.plan.options import Options
from quantcli.plan.overrides import Override
from quantcli.plan.recipes import COUNTED, FileType, ModelFacts, Place, role_of

_LAYER = re.compile(r"blk\.(\d{1,9})\.", re.ASCII)

# ---- what is left alone ----------------------------------------------------------------------------------------

_TIME_MIX = tuple(f"time_mix_{part}.weight" for part in (
    "first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2", "decay_w1", "decay_w2", "lerp_fused",
))  # fmt: skip
# Parts of names that llama-quantize never touches: norms, routers, small or sensitive tables.
_KEPT_PARTS = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "attn_rel_b.weight",
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
    "a.rvq.codebook", "mm.a.code_embd",
    *_TIME_MIX,
)  # fmt: skip
_KEPT = re.compile("|".join(map(re.escape, _KEPT_PARTS)))
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")
_KEPT_OF_ARCHITECTURE = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight"),
}  # fmt: skip

# Parts of names that llama.cpp's converter writes as F32 whatever --outtype says (besides vectors, norms and names
# that don't end in .weight). Only asked where the float default is F32 too and the model's own types can't tell.
_CONVERTER_F32 = (
    "_norm.weight", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "indexer.proj",
    "altup_correct_coef", "altup_predict_coef", *_TIME_MIX,
)  # fmt: skip


def quantizable(name: str, shape: tuple[int, ...], architecture: str) -> bool:
    """Whether llama-quantize gives this tensor a target type; otherwise it keeps its own."""
    if not (name.endswith("weight") and _matrix(shape)) or name in _KEPT_NAMES:
        return False
    if _KEPT.search(name):
        return False
    return not any(part in name for part in _KEPT_OF_ARCHITECTURE.get(architecture, ()))


def _matrix(shape: tuple[int, ...]) -> bool:
    return any(extent != 1 for extent in shape[1:])


def _converted(tensor: ModelTensor, model: Model) -> bool:
    """Whether the converter's --outtype reaches this tensor of a checkpoint."""
    if model.default_float.name != "F32":
        return tensor.type == model.default_float
    return (tensor.type.name == "F32" and tensor.name.endswith(".weight") and _matrix(tensor.shape)
            and not any(part in tensor.name for part in _CONVERTER_F32))  # fmt: skip


# ---- the model as the rules see it -----------------------------------------------------------------------------

# Layers (without next-token-prediction layers) of models that count as 70B; True: only with grouped queries.
_CLASS_70B = {
    "llama": (80, True), "deci": (80, False), "olmo": (80, False), "qwen2": (80, False), "jais2": (68, False),
}  # fmt: skip


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
    size, grouped = _CLASS_70B.get(architecture, (0, False))
    class_70b = (layers - number("nextn_predict_layers") == size > 0 and experts != 8
                 and (not grouped or heads != kv_heads))  # fmt: skip
    return ModelFacts(
        architecture=architecture, layers=layers, gqa=heads // kv_heads if kv_heads > 0 else 0, experts=experts,
        imatrix=imatrix, tied="output.weight" not in names,
        v_tensors=sum(role_of(name) == "v" for name in names if "attn_" in name), class_70b=class_70b,
    )  # fmt: skip


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
            f"{columns} columns are no multiple of {wanted.name}'s block of {wanted.block}, and nothing stands in for it",
            hint="choose another type for this tensor (--tensor-type)",
        )
    candidate = BY_NAME[wanted.fallback] if wanted.fallback else wanted
    return candidate if columns % candidate.block == 0 else BY_NAME["F16"]


@dataclass
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
        if role == "embedding" and options.token_embedding_type:
            # The embedding of every layer may also be named by a pattern, which is then more exact.
            if tensor.name != "per_layer_token_embd.weight" or not self._override(tensor.name, count=False):
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
        return assigned or recipe.type_for(role, place)

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
