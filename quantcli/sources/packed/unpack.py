"""The table of packed formats, and how it is applied to a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import BadConfig, MalformedFile, MissingTensors, UnsupportedFile
from quantcli.sources.files import StoredTensor, shown
from quantcli.sources.packed import mxfp4
from quantcli.sources.packed.group import Format, Group, Settings
from quantcli.sources.tensor import LogicalTensor, SourceTensor

FORMATS: tuple[Format, ...] = (mxfp4.FORMAT,)


@dataclass(frozen=True, slots=True)
class Packing:
    """How one checkpoint is packed: the format, and what its quantization_config says about it."""

    format: Format
    settings: Settings

    def unpack(self, tensors: Sequence[StoredTensor]) -> list[SourceTensor]:
        """``tensors`` with every group replaced by its logical tensors, in the place of its codes.

        Raises MissingTensors, ShapeMismatch, UnsupportedFile, MalformedFile, naming the tensor.
        """
        stored = {tensor.name: tensor for tensor in tensors}
        groups = self._groups(stored)
        placed = {group.parts[self.format.parts[0]].name: group for group in groups}
        packed = {part.name for group in groups for part in group.parts.values()}
        result: list[SourceTensor] = []
        for tensor in tensors:
            if tensor.name in placed:
                result += self._logical(placed[tensor.name], stored.keys() - packed)
            elif tensor.name not in packed:
                result.append(tensor)
        return result

    def _groups(self, stored: Mapping[str, StoredTensor]) -> list[Group]:
        """All groups of the checkpoint, complete. Raises MissingTensors."""
        marked: dict[str, StoredTensor] = {}
        for name, tensor in stored.items():
            for mark in self.format.marks:
                if name.endswith(mark):
                    marked.setdefault(name.removesuffix(mark), tensor)
        groups = []
        for name, tensor in marked.items():
            parts = {ending: stored[name + ending] for ending in self.format.parts if name + ending in stored}
            for ending in self.format.parts:
                if ending not in parts and ending not in self.format.optional:
                    raise MissingTensors(
                        f"cannot be unpacked ({self.format.method}): {name + ending} is missing",
                        where=tensor.where,
                        hint="a shard may be missing: get the checkpoint again",
                    )
            groups.append(Group(name, parts))
        return groups

    def _logical(self, group: Group, others: frozenset[str] | set[str]) -> list[LogicalTensor]:
        """What a group stands for; ``others`` are the names that are taken. Raises MalformedFile."""
        found = list(self.format.logical(self.settings, group))
        for tensor in found:
            if tensor.name in others:
                raise MalformedFile(f"tensor {shown(tensor.name)} is there packed and unpacked", where=tensor.where)
        return found


def find(settings: object, tensors: Callable[[], Mapping[str, StoredTensor]]) -> Packing:
    """How a checkpoint with this quantization_config and these stored tensors is packed.

    ``tensors`` is only called where a format is of the stated method. Raises UnsupportedFile, BadConfig.
    """
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or not isinstance(method, str):
        raise BadConfig(
            "quantization_config has no quant_method",
            where="config.json",
            hint="the checkpoint's config.json is damaged",
        )
    for packing in FORMATS:
        if packing.method == method and packing.recognise(settings, tensors()):
            return Packing(packing, settings)
    raise UnsupportedFile(
        f"the weights are already quantized ({method})",
        where="config.json",
        hint="convert the original checkpoint in BF16 or F16",
    )
