"""The table of packed formats, and how it is applied to a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import BadConfig, MalformedFile, MissingTensors, UnsupportedFile
from quantcli.sources.files import StoredTensor, shown
from quantcli.sources.jsonfile import text_in
from quantcli.sources.packed import mxfp4
from quantcli.sources.packed.group import Format, Group, Settings
from quantcli.sources.tensor import LogicalTensor, SourceTensor

# Dtypes of plain weights, and of what is beside them (positions, masks).
_PLAIN = ("F64", "F32", "F16", "BF16", "I64", "BOOL")
_BUFFERS = (".bias", ".masked_bias", "position_ids", "num_batches_tracked")
_SCALES = (
    ".weight_scale", ".weight_scale_inv", ".weight_scale_2", "_scales", ".scales", ".qzeros", ".weight_zero_point",
    ".absmax", ".SCB",
)  # fmt: skip
_DAMAGED = "the checkpoint's config.json is damaged"

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


def find(settings: object, tensors: Mapping[str, StoredTensor]) -> Packing | None:
    """How a checkpoint with this quantization_config and these stored tensors is packed; None where it is not.

    What config.json says is believed where something is packed only: it outlives the packing. Raises UnsupportedFile,
    BadConfig.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise BadConfig("quantization_config is no object", where="config.json", hint=_DAMAGED)
    stated = method(settings)
    sign = next((tensor for tensor in tensors.values() if _is_packed(tensor)), None)
    for packing in FORMATS:
        may_be = packing.method == stated or (stated is None and sign is not None and packing.evident)
        if may_be and packing.recognise(settings or {}, tensors):
            return Packing(packing, settings or {})
    if sign is None or settings is None:  # what cannot be read is told where it is used
        return None
    if stated is None:
        raise BadConfig("quantization_config has no quant_method", where="config.json", hint=_DAMAGED)
    raise UnsupportedFile(
        f"the weights are already quantized ({stated})",
        where="config.json",
        hint=f"{sign.name} is of type {sign.dtype}: convert the original checkpoint in BF16 or F16",
    )


def method(settings: object) -> str | None:
    """The way of packing that a quantization_config names."""
    return text_in(settings, "quant_method") or None


def _is_packed(tensor: StoredTensor) -> bool:
    """Whether a tensor shows that weights are packed: codes by its dtype, scales by its name."""
    if tensor.name.endswith(_SCALES):
        return True
    return tensor.dtype not in _PLAIN and not tensor.name.endswith(_BUFFERS)
