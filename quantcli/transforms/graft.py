"""Tensors of one GGUF model put into another of the same architecture, byte for byte.

For what is better, or only there, in another file: a head in a finer type, the blocks that predict further tokens, a
tower. The result is only right where both models compute alike, so everything that says how is compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from quantcli import container
from quantcli.container import Value
from quantcli.errors import MetadataMismatch, MissingTensors, ShapeMismatch, UnknownTensors, VocabularyMismatch
from quantcli.model import TENSOR_EXTRA, Model, ModelTensor, tensor_extra

_BLOCK = re.compile(r"blk\.(\d{1,9})\.", re.ASCII)
_TOKENS = "tokenizer.ggml.tokens"
# Below the architecture's name: what says how many blocks there are, and follows grafted blocks; and what changes no
# number that a model computes.
_COUNTS = ("block_count", "nextn_predict_layers")
_HARMLESS = ("context_length",)
_SLAB = 8 << 20  # bytes that are hashed at a time


@dataclass(frozen=True, slots=True)
class Grafted:
    """``model`` with tensors of the donor. ``replaced``: (tensor, the model's own before); ``added``: the new ones."""

    model: Model
    replaced: list[tuple[ModelTensor, ModelTensor]]
    added: list[ModelTensor]

    @property
    def tensors(self) -> list[ModelTensor]:
        return [*(new for new, _ in self.replaced), *self.added]


def graft(model: Model, donor: Model, pattern: re.Pattern[str]) -> Grafted:
    """``model`` with those tensors of ``donor`` in whose names ``pattern`` is found.

    Factors of blocks (NVFP4) come with these, and those of blocks that are replaced go.
    Raises UnknownTensors (none is), MetadataMismatch, ShapeMismatch, VocabularyMismatch, MissingTensors (a part of a
    new block, blocks without their factors).
    """
    chosen = {tensor.name: replace(tensor, shard=0) for tensor in donor.tensors if pattern.search(tensor.name)}
    if not chosen:
        some = ", ".join(tensor.name for tensor in donor.tensors[:3])
        raise UnknownTensors(
            f"no tensor's name matches {pattern.pattern!r}", where=_file(donor), hint=f"its tensors are {some} ..."
        )
    chosen |= _factors(donor, chosen)
    left = {tensor.name for tensor in model.tensors if tensor.beside in chosen} - chosen.keys()
    own = {tensor.name: tensor for tensor in model.tensors if tensor.name not in left}
    new_blocks = _new_blocks(model, donor, chosen)
    metadata = _metadata(model, donor, new_blocks)
    for name, tensor in chosen.items():
        if name in own and container.without_trailing_ones(own[name].shape) != container.without_trailing_ones(
            tensor.shape
        ):
            raise ShapeMismatch(
                f"has the shape {[*tensor.shape]}, {model.name}'s {[*own[name].shape]}",
                where=f"{_file(donor)}: tensor {name}",
                hint="tensors of other sizes belong to another model",
            )
    _check_vocabulary(model, donor, chosen.values())
    tensors = [chosen.get(name, tensor) for name, tensor in own.items()]
    added = [tensor for name, tensor in chosen.items() if name not in own]
    whole = replace(
        model,
        metadata=metadata | _lists(model, donor, {*chosen, *left}),
        tensors=[*tensors, *added],
        files=[*model.files, *donor.files],
        weight_files=[*model.weight_files, *donor.weight_files],
        handles=[*model.handles, *donor.handles],
        notes=[*model.notes],
    )
    return Grafted(whole, [(chosen[name], own[name]) for name in chosen if name in own], added)


def provenance(grafted: Grafted, donor: Model, pattern: re.Pattern[str]) -> dict[str, Value]:
    """Whose tensors these are, which, and the sha256 of their bytes, by name. A file may be grafted several times."""
    digest = hashlib.sha256()
    for tensor in sorted(grafted.tensors, key=lambda tensor: tensor.name):
        step = max(1, _SLAB * tensor.rows // max(1, _bytes(tensor)))
        for start in range(0, tensor.rows, step):
            digest.update(tensor.reader.read_raw(start, min(start + step, tensor.rows)))
    number = sum(1 for key in grafted.model.metadata if re.fullmatch(r"quantcli\.graft\.\d+\.donor", key))
    prefix = f"quantcli.graft.{number}."
    return {
        prefix + "donor": container.string(donor.name),
        prefix + "pattern": container.string(pattern.pattern),
        prefix + "tensors": container.u32(len(grafted.tensors)),
        prefix + "sha256": container.string(digest.hexdigest()),
    }


def _factors(donor: Model, chosen: Mapping[str, ModelTensor]) -> dict[str, ModelTensor]:
    """The factors that belong to chosen blocks. Raises MissingTensors where a factor is chosen without its blocks."""
    alone = [one for one in chosen.values() if one.beside and one.beside not in chosen]
    if alone:
        raise MissingTensors(
            f"{alone[0].name} is a factor of {alone[0].beside}, which is not chosen",
            where=_file(donor),
            hint="choose the blocks: their factors come along",
        )
    return {one.name: replace(one, shard=0) for one in donor.tensors if one.beside in chosen}


def _lists(model: Model, donor: Model, changed: Set[str]) -> dict[str, Value]:
    """What is said of single tensors: the model's own of those that stay, the donor's of those that come."""
    rows: dict[str, bool] = {}
    for one, ours in ((model, True), (donor, False)):
        names, flags = (_plain(one.metadata[key]) if key in one.metadata else [] for key in TENSOR_EXTRA)
        if isinstance(names, list) and isinstance(flags, list):
            pairs = ((str(name), bool(flag)) for name, flag in zip(names, flags, strict=False))
            rows |= {name: flag for name, flag in pairs if (name in changed) is not ours}
    if not any(key in one.metadata for one in (model, donor) for key in TENSOR_EXTRA):
        return {}
    return tensor_extra(rows)


def _file(model: Model) -> str:
    return model.files[0] if model.files else model.name


def _bytes(tensor: ModelTensor) -> int:
    return tensor.rows * (-(-tensor.columns // tensor.stored.block)) * tensor.stored.bytes


def _block(name: str) -> int:
    match = _BLOCK.match(name)
    return int(match[1]) if match else -1


def _new_blocks(model: Model, donor: Model, chosen: Mapping[str, ModelTensor]) -> set[int]:
    """The blocks that the model gets, each whole. Raises MissingTensors."""
    known = {_block(tensor.name) for tensor in model.tensors} | {-1}
    blocks = {_block(name) for name in chosen} - known
    left = [tensor.name for tensor in donor.tensors if _block(tensor.name) in blocks and tensor.name not in chosen]
    if left:
        raise MissingTensors(
            f"{len(left)} tensors of new blocks are not chosen: {', '.join(left[:5])}",
            where=_file(donor),
            hint=f"take whole blocks: --tensors '^blk\\.({'|'.join(map(str, sorted(blocks)))})\\.'",
        )
    return blocks


def _metadata(model: Model, donor: Model, new_blocks: set[int]) -> dict[str, Value]:
    """The model's entries, with the donor's counts and lists of blocks where it gives some. Raises MetadataMismatch."""
    if model.architecture != donor.architecture:
        raise MetadataMismatch(
            f"is a {donor.architecture} model, {model.name} a {model.architecture} one",
            where=_file(donor),
            hint="graft takes tensors of the same architecture",
        )
    metadata, prefix = dict(model.metadata), f"{model.architecture}."
    keys = dict.fromkeys(key for key in (*model.metadata, *donor.metadata) if key.startswith(prefix))
    for key in keys:
        ours, theirs = model.metadata.get(key), donor.metadata.get(key)
        if _same(ours, theirs) or key.removeprefix(prefix) in _HARMLESS:
            continue
        if new_blocks and theirs is not None and _follows(key.removeprefix(prefix), ours, theirs):
            metadata[key] = theirs
            continue
        raise MetadataMismatch(
            f"{key} is {_shown(theirs)}, in {model.name} {_shown(ours)}: the models do not compute alike",
            where=_file(donor),
            hint=f"where both are right, give one the other's: quantcli convert DONOR -t COPY --metadata {key}=VALUE",
        )
    return metadata


def _same(ours: Value | None, theirs: Value | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return _plain(ours) == _plain(theirs)


def _plain(value: Value) -> object:
    return list(value.data) if hasattr(value.data, "__len__") and not isinstance(value.data, str) else value.data


def _follows(name: str, ours: Value | None, theirs: Value) -> bool:
    """Whether an entry is the model's own with more blocks: a count, or a list that goes on."""
    if name in _COUNTS:
        return True
    before, after = (_plain(ours) if ours is not None else None), _plain(theirs)
    return isinstance(before, list) and isinstance(after, list) and after[: len(before)] == before


def _shown(value: Value | None) -> str:
    if value is None:
        return "absent"
    text = repr(_plain(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _check_vocabulary(model: Model, donor: Model, chosen: Iterable[ModelTensor]) -> None:
    """Rows that stand for tokens are only right where both models number these alike. Raises VocabularyMismatch."""
    ours, theirs = model.metadata.get(_TOKENS), donor.metadata.get(_TOKENS)
    if ours is None or theirs is None or _same(ours, theirs):
        return
    sizes = {len(value.data) for value in (ours, theirs) if hasattr(value.data, "__len__")}
    for tensor in chosen:
        if len(tensor.shape) > 1 and tensor.shape[1] in sizes:
            raise VocabularyMismatch(
                f"{tensor.name} has a row for every token, and the two models have other tokens",
                where=_file(donor),
                hint="take tensors without such rows, or a donor with the same tokenizer",
            )
