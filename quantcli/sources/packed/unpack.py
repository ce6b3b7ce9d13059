"""The table of packed formats, and how it is applied to a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantcli.errors import BadConfig, MalformedFile, MissingTensors, UnsupportedFile
from quantcli.sources.files import StoredTensor, shown
from quantcli.sources.jsonfile import text_in
from quantcli.sources.packed import awq, bitnet, bitsandbytes, fp8, gptq, integers, mxfp4, nvfp4, pack_quantized
from quantcli.sources.packed.group import Format, Group, Settings
from quantcli.sources.packed.signs import is_packed
from quantcli.sources.tensor import LogicalTensor, SourceTensor

# Scales of activations and of the cache: llama.cpp computes both without.
_DROPPED = (
    ".input_scale", ".activation_scale", "_activation_scale", "_input_scale", ".qscale_act", ".input_zero_point",
    ".input_global_scale", ".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".output_scale", ".prob_output_scale",
    ".k_zero_point", ".v_zero_point",
)  # fmt: skip
# Numbers that a matrix's inputs are multiplied by first: what GGUF has no place for.
_INPUTS = (".pre_quant_scale", ".smooth_scale", ".input_smooth_scale")
_DAMAGED = "the checkpoint's config.json is damaged"
# Methods that are known and not read: what they keep in place of scales of codes.
_UNREADABLE = {
    "hqq": "HQQ", "aqlm": "AQLM, additive codebooks", "vptq": "VPTQ, vector codebooks",
    "quip": "QuIP#, rotated codebooks", "exl2": "ExLlamaV2", "exl3": "ExLlamaV3", "spqr": "SpQR", "eetq": "EETQ",
    "quanto": "Quanto", "torchao": "torchao",
    "higgs": "HIGGS", "fp_quant": "FP-Quant",
}  # fmt: skip

# Of several formats of one method the first that takes a group's parts reads it.
FORMATS: tuple[Format, ...] = (
    mxfp4.FORMAT,
    mxfp4.QUARK,
    mxfp4.COMPRESSED,
    nvfp4.MODELOPT,
    nvfp4.COMPRESSED,
    pack_quantized.FORMAT,
    integers.FORMAT,
    fp8.MODELOPT,
    *fp8.FORMATS,
    *gptq.FORMATS,
    *awq.FORMATS,
    bitnet.FORMAT,
    *bitsandbytes.FORMATS,
)


@dataclass(frozen=True, slots=True)
class Packing:
    """How one checkpoint is packed: the formats that its method has, and what its quantization_config says."""

    formats: Sequence[Format]
    settings: Settings

    @property
    def format(self) -> Format:
        """The first of them."""
        return self.formats[0]

    def unpack(self, tensors: Sequence[StoredTensor]) -> list[SourceTensor]:
        """``tensors`` with every group replaced by its logical tensors, in the place of its codes.

        Raises MissingTensors, ShapeMismatch, UnsupportedFile, MalformedFile, naming the tensor.
        """
        stored = {tensor.name: tensor for tensor in tensors}
        groups = self._groups(stored)
        placed = {_codes(packing, group).name: (packing, group) for packing, group in groups}
        packed = {part.name for _, group in groups for part in group.parts.values()}
        result: list[SourceTensor] = []
        for tensor in tensors:
            if tensor.name.endswith(_INPUTS):
                raise UnsupportedFile(
                    "multiplies the inputs of a matrix (AWQ or SmoothQuant of ModelOpt), which cannot be read",
                    where=tensor.where,
                    hint="use a checkpoint that is packed without it, or the original weights",
                )
            if tensor.name in placed:
                result += self._logical(*placed[tensor.name], stored.keys() - packed)
            elif tensor.name not in packed and not tensor.name.endswith(_DROPPED):
                result.append(tensor)
        return result

    def _groups(self, stored: Mapping[str, StoredTensor]) -> list[tuple[Format, Group]]:
        """All groups of the checkpoint with their formats, complete. Raises MissingTensors, UnsupportedFile."""
        claimed: set[str] = set()  # marks that belong to a group
        found = []
        for packing in self.formats:
            for group in _marked(packing, stored, claimed):
                if packing.takes(group.parts):
                    claimed |= {part.name for part in group.parts.values()}
                    _check_complete(packing, group)
                    found.append((packing, group))
        for packing in self.formats:
            for group in _marked(packing, stored, claimed):
                _check_complete(packing, group)
                raise self._of_no_format(group)
        return found

    def _of_no_format(self, group: Group) -> UnsupportedFile:
        codes = next(iter(group.parts.values()))
        return UnsupportedFile(
            f"is of type {codes.dtype} and has scales, which no format of {self.format.method} reads together",
            where=codes.where,
            hint="quantized checkpoints of this kind cannot be converted; use the original weights",
        )

    def _logical(self, packing: Format, group: Group, others: frozenset[str] | set[str]) -> list[LogicalTensor]:
        """What a group stands for; ``others`` are the names that are taken. Raises MalformedFile."""
        try:
            found = list(packing.logical(self.settings, group))
        except BadConfig as error:
            error.message = f"{error.message} (tensor {shown(_codes(packing, group).name)})"
            raise
        for tensor in found:
            if tensor.name in others:
                raise MalformedFile(f"tensor {shown(tensor.name)} is there packed and unpacked", where=tensor.where)
        return found


def _codes(packing: Format, group: Group) -> StoredTensor:
    return group.parts[packing.parts[0]]


def _marked(packing: Format, stored: Mapping[str, StoredTensor], claimed: set[str]) -> Iterator[Group]:
    """The groups that marks show which no other group has."""
    seen: set[str] = set()
    for name in stored:
        for mark in packing.marks:
            base = name.removesuffix(mark)
            if name.endswith(mark) and base not in seen and name not in claimed:
                seen.add(base)
                parts = {ending: stored[base + ending] for ending in packing.parts if base + ending in stored}
                yield Group(base, parts)


def _check_complete(packing: Format, group: Group) -> None:
    """Raises MissingTensors."""
    for ending in packing.parts:
        if ending not in group.parts and ending not in packing.optional:
            mark = next(group.parts[mark] for mark in packing.marks if mark in group.parts)
            raise MissingTensors(
                f"cannot be unpacked ({packing.method}): {group.name + ending} is missing",
                where=mark.where,
                hint="a shard may be missing: get the checkpoint again",
            )


def find(settings: object, tensors: Mapping[str, StoredTensor]) -> Packing | None:
    """How a checkpoint with this quantization_config and these stored tensors is packed; None where it is not.

    What config.json says is believed where something is packed only: it outlives the packing. Raises UnsupportedFile,
    BadConfig.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise BadConfig("quantization_config is no object", where="config.json", hint=_DAMAGED)
    stated = method(settings)
    sign = next((tensor for tensor in tensors.values() if is_packed(tensor)), None)
    formats = [
        packing
        for packing in FORMATS
        if (packing.method == stated or (stated is None and sign is not None and packing.evident))
        and packing.recognise(settings or {}, tensors)
    ]
    if formats:
        return Packing(formats, settings or {})
    if sign is None or settings is None:  # what cannot be read is told where it is used
        return None
    if stated is None:
        raise BadConfig("quantization_config has no quant_method", where="config.json", hint=_DAMAGED)
    known = _UNREADABLE.get(stated.lower().replace("-", "_"))
    of = f"{stated}: {known}, which cannot be read" if known and known.lower() != stated.lower() else stated
    raise UnsupportedFile(
        f"the weights are already quantized ({of})",
        where="config.json",
        hint=f"{sign.name} is of type {sign.dtype}: convert the original checkpoint in BF16 or F16",
    )


def method(settings: object) -> str | None:
    """The way of packing that a quantization_config names."""
    return text_in(settings, "quant_method") or None
