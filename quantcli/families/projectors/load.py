"""A checkpoint folder -> the Model of its projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantcli.errors import QuantcliError, UnknownArchitecture
from quantcli.families import bind, metadata
from quantcli.families.facts import bad, settle
from quantcli.families.load import make_tensors
from quantcli.families.names import unwrapped
from quantcli.families.projectors import token_rows
from quantcli.families.projectors.catalogue import find, registry
from quantcli.families.projectors.declaration import Projector
from quantcli.families.written import types_of
from quantcli.model import Model
from quantcli.sources.config import text_part

if TYPE_CHECKING:
    from quantcli.sources.checkpoint import Checkpoint

_PROCESSORS = (("preprocessor_config.json", "media_proc_cfg"), ("processor_config.json", "image_processor"))
_PATCHES = (".patch_embd.weight", ".patch_merger.weight")  # F16 in files of this type, F32 in all others


def load_projector(checkpoint: Checkpoint, image_break: bool = False) -> Model:
    """The projector of ``checkpoint`` as a GGUF file of its own.

    ``image_break``: with the embedding of its token that ends a row of an image, even where llama.cpp's converter
    leaves that out. Raises UnknownArchitecture where no projector is declared for its class, UsageError where one has
    no such token, and what `families.load_checkpoint` raises.
    """
    projector = find(checkpoint.config)
    if projector is None:
        raise _unknown(checkpoint)
    try:
        facts = settle(projector.facts, _config(checkpoint, projector), checkpoint.json)
    except QuantcliError as error:
        error.where = str(checkpoint.folder / "config.json") if error.where == "config.json" else error.where
        raise
    sources = [tensor for tensor in checkpoint.logical_tensors if _is_part(tensor.name, projector)]
    binding = bind.bind(projector, facts, sources, str(checkpoint.folder))
    tensors, default = make_tensors(checkpoint, projector, facts, binding.tensors, sources)
    for tensor, bound in zip(tensors, binding.tensors, strict=True):
        tensor.targets = types_of(tensor.name, tensor.shape, bound.spec.rule.type, half_or_single=_PATCHES)
        tensor.type = tensor.targets.get(default.name, tensor.type)
    warnings = token_rows.add(checkpoint, projector, tensors, image_break)
    entries = {
        **metadata.general(projector, checkpoint, tensors, "mmproj"),
        **metadata.architecture(projector, facts, text=False),
        **metadata.provenance(checkpoint.digests(("config.json", *(name for name, _ in _PROCESSORS)))),
    }
    return Model(
        name=checkpoint.name,
        architecture=projector.gguf_arch,
        metadata=entries,
        tensors=tensors,
        default_float=default,
        kind="checkpoint",
        role="projector",
        follows_converter=True,
        files=[*checkpoint.files, *(str(checkpoint.folder / name) for name, _ in _PROCESSORS)],
        weight_files=[path for path in checkpoint.files if path.endswith(".safetensors")],
        shards=len(checkpoint.tensor_files),
        notes=[*binding.notes, *checkpoint.notes],
        warnings=warnings,
    )


def _is_part(name: str, projector: Projector) -> bool:
    return unwrapped(name).startswith(projector.parts)


def _config(checkpoint: Checkpoint, projector: Projector) -> dict[str, object]:
    """config.json with the three parts that projectors read. Raises BadConfig."""
    config = checkpoint.config
    tower = config.get(projector.settings)
    if not isinstance(tower, Mapping):
        raise bad(projector.settings, "is missing", "this checkpoint has no tower: convert it without --mmproj")
    processor: dict[str, object] = {}
    for name, part in _PROCESSORS:
        found = checkpoint.json(name)
        if isinstance(found, Mapping):
            inner = found.get(part)
            processor |= {**found, **(inner if isinstance(inner, Mapping) else {})}
    return {**config, "tower": tower, "text": {**config, **text_part(config)}, "processor": processor}


def _unknown(checkpoint: Checkpoint) -> UnknownArchitecture:
    known: Sequence[str] = sorted({name for one in registry().values() for name in one.hf_architectures})
    stated = checkpoint.config.get("architectures")
    named = str(stated[0]) if isinstance(stated, list) and stated else str(checkpoint.config.get("model_type"))
    return UnknownArchitecture(
        f"no projector is declared for {named}",
        where=str(checkpoint.folder / "config.json"),
        hint=f"known: {', '.join(known)}; without --mmproj the text part alone is converted",
    )
