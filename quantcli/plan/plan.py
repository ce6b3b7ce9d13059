"""Model and options become a plan: type, bytes, shard and offset of every tensor, and the header of every file.

Pure and quick: it looks at names, shapes and metadata, never at weights, so that a dry run is exact to the byte. The
rules are in recipes.py, the choice of types in choose.py, the layout of files in shards.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from quantcli import container
from quantcli.container import Value
from quantcli.errors import ImportanceNeeded, QuantcliError, QuantizedSource, UsageError
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor
from quantcli.plan import recipes
from quantcli.plan.choose import Chooser, facts_of, layer_of
from quantcli.plan.overrides import Override, Setting, apply_settings
from quantcli.plan.recipes import FileType
from quantcli.plan.shards import PlannedTensor, Shard, build, place

__all__ = ["Options", "Plan", "PlannedTensor", "Shard", "make", "nominal_bpw", "to_json"]

# Tensors that llama-quantize lets pass without importance: a matrix is seldom collected for them.
_SPARED = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
# Types that ggml's own encoder refuses without importance, also for those.
_INSISTING = ("IQ2_XXS", "IQ2_XS", "IQ1_S")
_LONGEST_NAME = 127  # bytes of quantize.imatrix.file in llama.cpp


@dataclass(frozen=True)
class Options:
    """What one output shall be.

    ``importance`` is the matrix that will be used (see imatrix.py); ``imatrix`` plans
    as if there were one. ``provenance`` is what this run says of itself; ``metadata`` overrides win over everything.
    """

    type: FileType  # or its name
    pure: bool = False
    overrides: tuple[Override, ...] = ()
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    leave_output_tensor: bool = False
    imatrix: bool = False
    importance: Any = None
    keep_split: bool = False
    split_max_size: int | None = None  # bytes of tensor data in one shard
    metadata: tuple[Setting, ...] = ()
    provenance: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.type, str):
            object.__setattr__(self, "type", recipes.parse(self.type))
        if self.keep_split and self.split_max_size is not None:
            raise UsageError("--keep-split and --split-max-size exclude each other")

    @property
    def has_imatrix(self) -> bool:
        """Whether the recipes see a matrix: one was given and it holds something."""
        return self.imatrix or (self.importance is not None and len(self.importance.entries) > 0)


@dataclass(frozen=True)
class Plan:
    """One output. ``entries`` are in writing order. ``problems`` forbid writing it (see ``check``)."""

    model: Model
    options: Options
    entries: Sequence[PlannedTensor]
    shards: Sequence[Shard]
    metadata: dict[str, Value]
    needs_imatrix: list[str]
    problems: list[QuantcliError]
    notes: list[str]

    @property
    def type(self) -> FileType:
        return self.options.type

    @cached_property
    def fallbacks(self) -> list[PlannedTensor]:
        """Tensors whose rows the wanted type's block does not divide."""
        return [entry for entry in self.entries if entry.wanted is not None]

    @cached_property
    def requantized(self) -> list[PlannedTensor]:
        """Tensors that are quantized already and would be quantized again to another type."""
        return [e for e in self.entries if e.tensor.type.quantized and e.type is not e.tensor.type]

    @cached_property
    def tensor_bytes(self) -> int:
        """All tensor data without padding."""
        return sum(entry.bytes for entry in self.entries)

    @cached_property
    def file_bytes(self) -> int:
        """All files together."""
        return sum(shard.file_bytes for shard in self.shards)

    @cached_property
    def weights(self) -> int:
        return sum(prod(entry.tensor.shape) for entry in self.entries)

    @property
    def bpw(self) -> float:
        """Bits of tensor data per weight."""
        return 8 * self.tensor_bytes / self.weights if self.weights else 0.0

    @cached_property
    def lacking_importance(self) -> list[str]:
        """Tensors that need importance and get none from ``options.importance``."""
        given = self.options.importance
        insisting = [
            e.tensor.name
            for e in self.entries
            if e.tensor.name in _SPARED and e.type.name in _INSISTING and e.type is not e.tensor.type
        ]
        names = self.needs_imatrix + insisting
        if given is None:
            return names
        shapes = {entry.tensor.name: entry.tensor.shape for entry in self.entries} if names else {}
        return [name for name in names if given.for_tensor(name, shapes[name]) is None]

    def check(self, *, writing: bool = True, allow_no_imatrix: bool = False, allow_requantize: bool = False) -> None:
        """Raise what forbids this plan: IndivisibleRow, QuantizedSource; when ``writing`` also ImportanceNeeded."""
        if self.problems:
            raise self.problems[0]
        if self.requantized and not allow_requantize:
            raise self._double_loss()
        if writing and not allow_no_imatrix and self.lacking_importance:
            raise self._no_importance()

    def _double_loss(self) -> QuantizedSource:
        counts = Counter((e.tensor.type.name, e.type.name) for e in self.requantized)
        changes = ", ".join(f"{count} {old} to {new}" for (old, new), count in counts.most_common(4))
        return QuantizedSource(
            f"{len(self.requantized)} of {len(self.entries)} tensors are quantized already; what their rounding lost "
            f"stays lost and {self.type.name} rounds again ({changes}{', ...' if len(counts) > 4 else ''})",
            where=self.model.name,
            hint="convert from the float model, or accept the double loss with --allow-requantize",
        )  # fmt: skip

    def _no_importance(self) -> ImportanceNeeded:
        first = self.lacking_importance[0]
        row = next(entry.type for entry in self.entries if entry.tensor.name == first)
        lack = "none is given" if self.options.importance is None else "the given one has no entry for it"
        count = len(self.lacking_importance)
        return ImportanceNeeded(
            f"{row.name} needs an importance matrix and {lack} ({count} of {len(self.entries)} tensors)",
            where=f"tensor {first}",
            hint="give --imatrix FILE, choose another type, or accept worse quality with --allow-no-imatrix",
        )  # fmt: skip


def make(model: Model, options: Options) -> Plan:
    """Plan one output of ``model``. Raises for contradictions in the model or the options, not for what merely
    forbids writing: that is in ``Plan.problems`` and raised by ``Plan.check``."""
    metadata = _metadata(model, options)
    facts = facts_of((t.name for t in model.tensors), metadata, model.architecture, options.has_imatrix)
    chooser = Chooser(model, options, facts)
    rows, problems, needs = [], [], []
    for tensor in in_order(model, options):
        row, wanted, problem = chooser.choose(tensor)
        if problem is not None:
            problems.append(problem)
        if options.type.requires_importance(row) and row is not tensor.type and tensor.name not in _SPARED:
            needs.append(tensor.name)
        rows.append((tensor, row, wanted, _bytes(row, tensor)))
    entries = list(place(rows, options.split_max_size, options.keep_split))
    converted = options.type.is_float and model.kind == "checkpoint"  # written by the converter alone, not by ggml
    shards = build(metadata, entries, model.shards if options.keep_split else 1, keep_ones=converted)
    return Plan(model, options, entries, shards, metadata, needs, problems, _notes(chooser))


def in_order(model: Model, options: Options) -> list[ModelTensor]:
    """The tensors as they are written: by layer (others first), then by the bytes of the name; with --keep-split
    shard by shard as in the source. The rules' running numbers follow the same order."""
    if options.keep_split:
        return sorted(model.tensors, key=lambda tensor: tensor.shard)
    return sorted(model.tensors, key=lambda tensor: (layer_of(tensor.name), tensor.name.encode()))


def _bytes(row: TensorType, tensor: ModelTensor) -> int:
    # Rounded up only for rows that a problem already reports.
    return -(-tensor.columns // row.block) * row.bytes * tensor.rows


def _notes(chooser: Chooser) -> list[str]:
    return [f"--tensor-type {override.pattern!r} decides no tensor"
            + (f": {chooser.recipe.name} ignores it" if chooser.recipe.is_float else "")
            for override, hits in chooser.hits.items() if not hits]  # fmt: skip


# ---- metadata --------------------------------------------------------------------------------------------------


def _metadata(model: Model, options: Options) -> dict[str, Value]:
    """The keys of the output (without split.*): the source's, then what describes this quantization."""
    dropped = ("general.quantization_version", "general.file_type")
    result = {key: value for key, value in model.metadata.items()
              if not key.startswith("split.") and key not in dropped}  # fmt: skip
    if "general.alignment" in result:
        result["general.alignment"] = container.u32(32)  # what the output's data is aligned to
    result["general.quantization_version"] = container.u32(2)
    result["general.file_type"] = container.u32(_file_type(model, options.type))
    if options.importance is not None and options.has_imatrix:
        result = {key: value for key, value in result.items() if not key.startswith("quantize.imatrix.")}
        result.update(_imatrix_metadata(options.importance))
    result.update(options.provenance)
    return apply_settings(result, options.metadata)


def _file_type(model: Model, recipe: FileType) -> int:
    if not recipe.copies:
        return recipe.number
    if model.kind == "checkpoint":
        return recipes.guess(model.default_float).number
    stated = model.metadata.get("general.file_type")
    if stated is not None and isinstance(stated.data, int) and 0 <= stated.data < 2**32:
        return stated.data
    # As llama.cpp's loader guesses: the type that is first to reach the highest count.
    counts = Counter(tensor.type.name for tensor in model.tensors)
    most = max(counts.values(), default=0)
    seen: Counter[str] = Counter()
    for tensor in model.tensors:
        seen[tensor.type.name] += 1
        if seen[tensor.type.name] == most:
            return recipes.guess(tensor.type).number | recipes.GUESSED
    return recipes.GUESSED


def _imatrix_metadata(importance: Any) -> dict[str, Value]:
    """llama.cpp's four keys and a content hash. Names only: a path would tell about the machine."""
    result = {"quantize.imatrix.file": container.string(_cut(_base_name(str(importance.name))))}
    datasets = list(importance.datasets or ())
    if datasets:
        result["quantize.imatrix.dataset"] = container.string(_cut(_base_name(str(datasets[0]))))
    result["quantize.imatrix.entries_count"] = container.u32(len(importance.entries))
    if importance.chunks and importance.chunks > 0:
        result["quantize.imatrix.chunks_count"] = container.u32(min(int(importance.chunks), 2**32 - 1))
    if getattr(importance, "sha256", None):
        result["quantize.imatrix.sha256"] = container.string(importance.sha256)
    return result


def _base_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")


# ---- plain data for others -------------------------------------------------------------------------------------


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan's part of one output in the JSON report: shapes in GGUF order (columns first), tensors as written."""

    def shape(entry: PlannedTensor) -> list[int]:
        given = entry.tensor.shape
        return list(given if plan.shards[entry.shard].keep_ones else container.without_trailing_ones(given))

    return {
        "type": plan.type.name,
        "bytes": plan.file_bytes,
        "bpw": plan.bpw,
        "tensors": [
            {"name": e.tensor.name, "shape": shape(e), "type": e.type.name, "bytes": e.bytes}
            for e in plan.entries
        ],
        "fallbacks": len(plan.fallbacks),
        "fallback_tensors": [
            {"name": e.tensor.name, "wanted": e.wanted.name, "type": e.type.name} for e in plan.fallbacks
        ],
        "needs_imatrix": bool(plan.needs_imatrix),
    }  # fmt: skip


def nominal_bpw(recipe: FileType) -> float | None:
    """Bits per weight of ``recipe`` on the shapes of Llama-3-8B, with importance; None for COPY and NVFP4.

    The figure that lists of types state; a model of other shapes gives another (fallbacks, small layers).
    """
    if recipe.copies or not recipe.selectable:
        return None
    layer = {"attn_k": (4096, 1024), "attn_output": (4096, 4096), "attn_q": (4096, 4096), "attn_v": (4096, 1024),
             "ffn_down": (14336, 4096), "ffn_gate": (4096, 14336), "ffn_up": (4096, 14336)}  # fmt: skip
    shapes = {"output.weight": (4096, 128256), "token_embd.weight": (4096, 128256)}
    shapes |= {f"blk.{n}.{name}.weight": shape for n in range(32) for name, shape in layer.items()}
    row = recipes.FILE_TYPES["BF16"].default_type
    tensors = [ModelTensor(name, shape, row, row, True, None, name) for name, shape in shapes.items()]
    numbers = {"block_count": 32, "attention.head_count": 32, "attention.head_count_kv": 8}
    metadata = {f"llama.{key}": container.u32(value) for key, value in numbers.items()}
    return make(Model("Llama-3-8B", "llama", metadata, tensors, row, "gguf"), Options(recipe, imatrix=True)).bpw
