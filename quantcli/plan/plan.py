"""Model and options become a plan: type, bytes, shard and offset of every tensor, and the header of every file.

Pure and quick: it looks at names, shapes and metadata, never at weights, so that a dry run is exact to the byte. The
options are in options.py, the rules in recipes.py, the choice of types in choose.py, the layout of files in shards.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from quantcli import container
from quantcli.container import Value
from quantcli.errors import ImportanceNeeded, QuantcliError, QuantizedSource, UnknownTensors
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor, tensor_extra
from quantcli.plan import recipes
from quantcli.plan.choose import Chooser, facts_of, layer_of
from quantcli.plan.options import Options
from quantcli.plan.overrides import apply_settings
from quantcli.plan.recipes import FileType
from quantcli.plan.shards import PlannedTensor, Shard, build, place
from quantcli.statistics.imatrix import Importance

if TYPE_CHECKING:
    from quantcli.report.results import PlanResult

# Tensors that llama-quantize lets pass without importance: a matrix is seldom collected for them.
_SPARED = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
# Types that ggml's own encoder refuses without importance, also for those.
_INSISTING = ("IQ2_XXS", "IQ2_XS", "IQ1_S")
# What a checkpoint is called whose blocks of these types are copied into a file of floats.
_PACKED_FILE_TYPES = {"NVFP4": "NVFP4", "MXFP4": "MXFP4_MOE"}
_VOCABULARY = "tokenizer."  # begins the keys of entries that a checkpoint's vocabulary becomes
_LONGEST_NAME = 127  # bytes of quantize.imatrix.file in llama.cpp


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
    assignment: Mapping[str, TensorType] = field(default_factory=dict)  # that it was made with
    whole: Plan | None = None  # that this is a part of
    numbers: tuple[int, ...] = ()  # of its shards in the whole

    def only(self, numbers: Sequence[int]) -> Plan:
        """The part that holds these shards alone; every one of them is as it is in the whole."""
        places = {number: place for place, number in enumerate(numbers)}
        entries = [entry._replace(shard=places[entry.shard]) for entry in self.entries if entry.shard in places]
        shards = [self.shards[number] for number in numbers]
        return replace(self, entries=entries, shards=shards, whole=self, numbers=tuple(numbers))

    def holding(self, tensors: Mapping[str, ModelTensor]) -> Plan:
        """The same plan with other tensors under the names given: of the same shapes, encoded already or changed."""

        def held(entries: Sequence[PlannedTensor]) -> list[PlannedTensor]:
            return [entry._replace(tensor=tensors.get(entry.tensor.name, entry.tensor)) for entry in entries]

        shards = [replace(shard, entries=held(shard.entries)) for shard in self.shards]
        return replace(self, entries=held(self.entries), shards=shards)

    @property
    def file_type(self) -> FileType:
        return self.options.file_type

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
        return [name for name in names if not given.has(name, shapes[name])]

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
            f"stays lost and {self.file_type.name} rounds again ({changes}{', ...' if len(counts) > 4 else ''})",
            where=self.model.name,
            hint="convert from the float model, or accept the double loss with --allow-requantize",
        )  # fmt: skip

    def _no_importance(self) -> ImportanceNeeded:
        first = self.lacking_importance[0]
        refused = next(entry.type for entry in self.entries if entry.tensor.name == first)
        lack = "none is given" if self.options.importance is None else "the given one has no entry for it"
        count = len(self.lacking_importance)
        return ImportanceNeeded(
            f"{refused.name} needs an importance matrix and {lack} ({count} of {len(self.entries)} tensors)",
            where=f"tensor {first}",
            hint="add --imatrix auto (collected from the bundled text), or --imatrix FILE, or choose another type; "
            "--allow-no-imatrix accepts worse quality",
        )  # fmt: skip


def make(model: Model, options: Options, assignment: Mapping[str, TensorType] | None = None) -> Plan:
    """Plan one output of ``model``.

    ``assignment`` (tensor name -> type) takes the place of what the recipe's rules choose for these tensors; what the
    user says against the rules still wins, and a row that the assigned type's block does not divide falls back. All
    other tensors keep the types that they have without it.

    Raises for contradictions in the model, the options or the assignment (UnknownTensors), not for what merely forbids
    writing: that is in ``Plan.problems`` and raised by ``Plan.check``.
    """
    assignment = assignment or {}
    _check_assignment(model, assignment)
    metadata = _metadata(model, options)
    names = (tensor.name for tensor in model.tensors if not tensor.beside)
    facts = facts_of(names, metadata, model.architecture, options.has_imatrix)
    chooser = Chooser(model, options, facts, assignment)
    chosen, problems, needs = [], [], []
    for tensor in in_order(model, options):
        tensor_type, wanted, problem = chooser.choose(tensor)
        if problem is not None:
            problems.append(problem)
        insists = options.file_type.requires_importance(tensor_type) and tensor_type is not tensor.type
        if insists and tensor.name not in _SPARED:
            needs.append(tensor.name)
        written = tensor if tensor_type is tensor.stored else tensor.decoded or tensor
        chosen.append((written, tensor_type, wanted, _bytes(tensor_type, tensor)))
    copied = {tensor.name for tensor, tensor_type, *_ in chosen if tensor.raw and tensor_type is tensor.stored}
    chosen = [row for row in chosen if not row[0].beside or row[0].beside in copied]
    wide = [tensor.name for tensor, *_ in chosen if tensor.wide_inputs and tensor.name in copied]
    metadata |= tensor_extra(dict.fromkeys(wide, False)) if wide else {}
    entries = list(place(chosen, options.split_max_size, options.keep_split))
    keep_ones = options.file_type.is_float and model.follows_converter
    least, marked = model.shards if options.keep_split else 1, _marked(model, options, metadata)
    shards = build(metadata, entries, least, keep_ones=keep_ones, marked=marked)
    notes = _notes(chooser) + _decoded_notes(model, entries, options.file_type)
    return Plan(model, options, entries, shards, metadata, needs, problems, notes, assignment)


def _check_assignment(model: Model, assignment: Mapping[str, TensorType]) -> None:
    unknown = assignment.keys() - {tensor.name for tensor in model.tensors} if assignment else set()
    if unknown:
        names = sorted(unknown)
        raise UnknownTensors(
            f"types are assigned to {len(names)} tensors that the model does not have "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})",
            where=model.name,
        )


def in_order(model: Model, options: Options) -> list[ModelTensor]:
    """The tensors as they are written: by layer (others first), then by the bytes of the name; with --keep-split
    shard by shard as in the source. The rules' running numbers follow the same order."""
    if options.keep_split:
        return sorted(model.tensors, key=lambda tensor: tensor.shard)
    return sorted(model.tensors, key=lambda tensor: (layer_of(tensor.name), tensor.name.encode()))


def _bytes(tensor_type: TensorType, tensor: ModelTensor) -> int:
    # Rounded up only for rows that a problem already reports.
    return -(-tensor.columns // tensor_type.block) * tensor_type.bytes * tensor.rows


def _decoded_notes(model: Model, entries: Sequence[PlannedTensor], recipe: FileType) -> list[str]:
    """What was packed as a tensor type and becomes another: it is rounded twice."""
    own = {
        tensor.name: tensor.stored for tensor in model.tensors if tensor.decoded and not tensor.decoded.type.quantized
    }
    counts = Counter(
        own[entry.tensor.name].name
        for entry in entries
        if entry.tensor.name in own and entry.type.quantized and entry.type is not own[entry.tensor.name]
    )
    return [
        f"{count} tensors are {name} in the checkpoint and are rounded again for {recipe.name}"
        for name, count in counts.items()
    ]


def _notes(chooser: Chooser) -> list[str]:
    ignored = f": {chooser.recipe.name} ignores it" if chooser.recipe.is_float else ""
    notes = [
        f"--tensor-type {override.pattern!r} decides no tensor{ignored}"
        for override, hits in chooser.hits.items()
        if not hits
    ]
    if chooser.unassigned:
        notes.append(
            f"{len(chooser.unassigned)} assigned types decide nothing, their tensors get no type of "
            f"{chooser.recipe.name} (first: {chooser.unassigned[0]})"
        )
    return notes


# ---- metadata --------------------------------------------------------------------------------------------------


def _metadata(model: Model, options: Options) -> dict[str, Value]:
    """The keys of the output (without split.*): the source's, then what describes this quantization."""
    dropped = ("general.quantization_version", "general.file_type")
    result = {key: value for key, value in model.metadata.items()
              if not key.startswith("split.") and key not in dropped}  # fmt: skip
    if "general.alignment" in result:
        result["general.alignment"] = container.u32(32)  # what the output's data is aligned to
    result["general.quantization_version"] = container.u32(2)
    result["general.file_type"] = container.u32(_file_type(model, options.file_type))
    if options.importance is not None and options.has_imatrix:
        result = {key: value for key, value in result.items() if not key.startswith("quantize.imatrix.")}
        result.update(_imatrix_metadata(options.importance))
    result.update(options.provenance)
    return apply_settings(result, options.metadata)


def _marked(model: Model, options: Options, metadata: dict[str, Value]) -> dict[str, Value]:
    """What tells plans apart: the metadata, but in place of a checkpoint's vocabulary where it comes from, and what the
    user says against it; so that of many parts those alone read it that write it."""
    if model.vocabulary is None:
        return metadata
    told = {key: value for key, value in metadata.items() if not key.startswith(_VOCABULARY)}
    own = [f"{one.key}={one.type}:{one.text}" for one in options.metadata if one.key.startswith(_VOCABULARY)]
    return told | {_VOCABULARY: container.strings([model.vocabulary.origin, *own])}


def _file_type(model: Model, recipe: FileType) -> int:
    if model.follows_converter and (recipe.is_float or recipe.copies):  # blocks of a packed checkpoint are copied
        packed = next((t.stored.name for t in model.tensors if t.stored.quantized), None)
        if packed in _PACKED_FILE_TYPES:
            return recipes.FILE_TYPES[_PACKED_FILE_TYPES[packed]].number or 0
    if recipe.number is not None:
        return recipe.number
    if model.follows_converter:
        return _guessed(model.default_float)
    if model.stated_file_type is not None:
        return model.stated_file_type
    # As llama.cpp's loader guesses: the type that is first to reach the highest count.
    counts = Counter(tensor.type.name for tensor in model.tensors)
    most = max(counts.values(), default=0)
    seen: Counter[str] = Counter()
    for tensor in model.tensors:
        seen[tensor.type.name] += 1
        if seen[tensor.type.name] == most:
            return _guessed(tensor.type) | recipes.GUESSED
    return recipes.GUESSED


def _guessed(tensor_type: TensorType) -> int:
    return recipes.guess(tensor_type).number or 0  # it is never COPY, which has none


def _imatrix_metadata(importance: Importance) -> dict[str, Value]:
    """llama.cpp's four keys and a content hash. Names only: a path would tell about the machine."""
    result = {"quantize.imatrix.file": container.string(_cut(_base_name(importance.name)))}
    datasets = list(importance.datasets)
    if datasets:
        result["quantize.imatrix.dataset"] = container.string(_cut(_base_name(datasets[0])))
    result["quantize.imatrix.entries_count"] = container.u32(len(importance.entries))
    if importance.chunks > 0:
        result["quantize.imatrix.chunks_count"] = container.u32(min(importance.chunks, 2**32 - 1))
    if importance.sha256:
        result["quantize.imatrix.sha256"] = container.string(importance.sha256)
    return result


def _base_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")


# ---- plain data for others -------------------------------------------------------------------------------------


def to_json(plan: Plan) -> PlanResult:
    """The plan's part of one output in the JSON report: shapes in GGUF order (columns first), tensors as written."""

    def shape(entry: PlannedTensor) -> list[int]:
        given = entry.tensor.shape
        return list(given if plan.shards[entry.shard].keep_ones else container.without_trailing_ones(given))

    return {
        "type": plan.file_type.name,
        "bytes": plan.file_bytes,
        "bpw": plan.bpw,
        "tensors": [
            {"name": e.tensor.name, "shape": shape(e), "type": e.type.name, "bytes": e.bytes} for e in plan.entries
        ],
        "fallbacks": len(plan.fallbacks),
        "fallback_tensors": [
            {"name": e.tensor.name, "wanted": e.wanted.name, "type": e.type.name}
            for e in plan.entries
            if e.wanted is not None
        ],
        "needs_imatrix": bool(plan.needs_imatrix),
    }


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
    bf16 = recipes.FILE_TYPES["BF16"].default_type
    tensors = [ModelTensor(name, shape, bf16, bf16, True, _Unread(), name) for name, shape in shapes.items()]
    numbers = {"block_count": 32, "attention.head_count": 32, "attention.head_count_kv": 8}
    metadata = {f"llama.{key}": container.u32(value) for key, value in numbers.items()}
    return make(Model("Llama-3-8B", "llama", metadata, tensors, bf16, "gguf"), Options(recipe, imatrix=True)).bpw


class _Unread:
    """The rows of a model that is only planned."""

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        raise AssertionError("a plan reads no weights")

    def read_raw(self, start: int, stop: int) -> bytes:
        raise AssertionError("a plan reads no weights")
