"""A GGUF file, also one in shards, as a model: any architecture, metadata carried over, rows decoded on demand."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy
from numpy.typing import NDArray

from quantcli import container
from quantcli.container import Header, TensorInfo, Value, known
from quantcli.errors import MalformedFile, QuantcliError, UnsupportedFile
from quantcli.ggml.tensor_types import BY_ID, BY_NAME, TensorType
from quantcli.model import Model, ModelTensor, RowReader
from quantcli.sources.files import SourceFile, StoredTensor

ARCHITECTURE, _NAME, _BASENAME, _TYPE = "general.architecture", "general.name", "general.basename", "general.type"
# What the file says of how it was made itself: not true of a file that is made from it.
_OF_ITS_OWN_MAKING = tuple(
    f"quantcli.{key}" for key in ("options", "source.name", "source.weights", "statistics.sha256")
)
_LONGEST_NAME = 120  # characters; file systems allow 255 bytes, and a type and a shard number follow
# What file names end in: `-Q4_K_M`, `.f16`, `-UD-IQ2_XXS`, `-MXFP4_MOE`.
_TYPE_SUFFIX = r"[-._](?:UD-)?(?:B?F16|F32|F64|I?Q\d[0-9A-Z]*(?:_[0-9A-Z]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4)\Z"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)


def open_gguf(path: str | os.PathLike[str]) -> Model:
    """The model in the GGUF file ``path`` (the first shard of several).

    Every tensor is ``raw``: its bytes can be copied, and whether they may be quantized anew is for the caller to say
    (``tensor.type.quantized``). Metadata are what the file holds without `split.*`; `general.alignment` is set to
    what outputs are written with. Raises MissingFile, UnsupportedFile, MalformedFile. `Model.close` closes the files.
    """
    headers = container.read_split_headers(path)
    architecture = _architecture(headers[0])
    files: list[SourceFile] = []
    try:
        for header in headers:
            files.append(SourceFile(header.path))
            files[-1].expect(header.data_start + info.offset for info in header.tensors)
    except QuantcliError:
        for file in files:
            file.close()
        raise
    tensors = [
        _model_tensor(info, header, file, shard)
        for shard, (header, file) in enumerate(zip(headers, files, strict=True))
        for info in header.tensors
    ]
    return Model(
        name=_name(headers[0]),
        architecture=architecture,
        metadata=_metadata(headers[0]),
        tensors=_with_factors(tensors),
        default_float=_default_float(tensors),
        kind="gguf",
        files=[str(file.path) for file in files],
        weight_files=[str(file.path) for file in files],
        shards=len(headers),
        handles=files,
    )


def check_general(header: Header) -> None:
    """Raises MalformedFile where an entry that names the model is of the wrong kind."""
    for key, problem in known.problems(header.metadata, known.GENERAL):
        raise MalformedFile(f"{key} {problem}", where=str(header.path), hint="the file does not describe its model")


def _architecture(header: Header) -> str:
    check_general(header)
    architecture = _text(header.metadata, ARCHITECTURE)
    if _text(header.metadata, _TYPE) == "imatrix":
        raise UnsupportedFile(
            "an importance matrix, not a model",
            where=str(header.path),
            hint="give it with --imatrix, and the model as the source",
        )
    if not architecture:
        raise UnsupportedFile(f"no {ARCHITECTURE} in the metadata: not a model", where=str(header.path))
    return architecture


def _metadata(header: Header) -> dict[str, Value]:
    dropped = (*container.SPLIT_KEYS, *_OF_ITS_OWN_MAKING)
    kept = {key: value for key, value in header.metadata.items() if key not in dropped}
    if container.ALIGNMENT_KEY in kept:
        kept[container.ALIGNMENT_KEY] = container.u32(container.DEFAULT_ALIGNMENT)
    return kept


def _model_tensor(info: TensorInfo, header: Header, file: SourceFile, shard: int) -> ModelTensor:
    tensor_type = BY_ID[info.type_id]
    stored = _stored_tensor(info, tensor_type, header, file)
    return ModelTensor(
        name=info.name,
        shape=info.shape,
        type=tensor_type,
        stored=tensor_type,
        raw=True,
        reader=stored,
        origin=stored.origin,
        shard=shard,
    )


def _with_factors(tensors: list[ModelTensor]) -> list[ModelTensor]:
    """NVFP4 tensors with the values that the factors beside them make of their blocks."""
    names = {tensor.name: tensor for tensor in tensors}
    for tensor in tensors:
        if tensor.type.name == "NVFP4" and tensor.name.endswith(".weight"):
            stem = tensor.name.removesuffix(".weight")
            factors = names.get(f"{stem}.scale")
            for beside in filter(None, (factors, names.get(f"{stem}.input_scale"))):
                beside.beside = tensor.name
            reader = Factored(tensor.reader, factors.reader if factors else None, tensor)
            tensor.decoded = replace(tensor, stored=BY_NAME["F32"], raw=False, reader=reader)
    return tensors


class Factored:
    """Decoded rows times the factor of their matrix. A `model.RowReader`."""

    def __init__(self, blocks: RowReader, factors: RowReader | None, tensor: ModelTensor) -> None:
        self._blocks, self._factors = blocks, factors
        self._rows = tensor.shape[1] if len(tensor.shape) > 2 else tensor.rows

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        values = self._blocks.read_rows(start, stop, out)
        if self._factors is not None:
            values *= self._factors.read_rows(0, 1)[0, numpy.arange(start, stop) // self._rows][:, None]
        return values

    def read_raw(self, start: int, stop: int) -> bytes:
        raise NotImplementedError("these rows are stored nowhere")


def _stored_tensor(info: TensorInfo, tensor_type: TensorType, header: Header, file: SourceFile) -> StoredTensor:
    """One tensor of a file, lazily read as [product of the other dimensions, columns]."""
    columns = info.shape[0]
    return StoredTensor(
        info.name,
        info.shape,
        tensor_type.name,
        tensor_type,
        file,
        header.data_start + info.offset,
        info.bytes,
        info.elements // columns,
        columns,
    )


def _default_float(tensors: Sequence[ModelTensor]) -> TensorType:
    """The type of the first float tensor with two or more dimensions; F16 where there is none."""
    found = (tensor.type for tensor in tensors if len(tensor.shape) > 1 and tensor.type.kind == "float")
    return next(found, BY_NAME["F16"])


# ---- names


def _text(metadata: dict[str, Value], key: str) -> str | None:
    value = metadata[key].data if key in metadata else None
    return value if isinstance(value, str) else None


def _name(header: Header) -> str:
    """general.name or general.basename as a file name, else the file's own name without type and shard number."""
    parts = container.split_name(header.path.name)
    stem = parts[0] if parts else header.path.name.removesuffix(".gguf")
    suffix = re.compile(_TYPE_SUFFIX, re.IGNORECASE)
    while (match := suffix.search(stem, 1)) is not None:
        stem = stem[: match.start()]
    for text in (_text(header.metadata, _NAME), _text(header.metadata, _BASENAME), stem):
        name = file_name(text or "")
        if name and not is_hash(name):
            return name
    return "model"


def file_name(text: str) -> str:
    """``text`` as part of a file name: blanks and what shells or file systems dislike become `-`."""
    kept = "".join(c if c.isalnum() or c in "._+-" else "-" for c in text[: 4 * _LONGEST_NAME])
    kept = re.sub("-{2,}", "-", kept)[:_LONGEST_NAME].strip("-.")
    return kept.encode("utf-8", "ignore")[: 2 * _LONGEST_NAME].decode("utf-8", "ignore")


def is_hash(name: str) -> bool:
    """Whether this is a commit's or content's hash and so says nothing about the model."""
    return _HASH.fullmatch(name) is not None
