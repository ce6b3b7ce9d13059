"""Safetensors files, single or sharded: u64 header length, JSON header, data. Nothing is trusted.

Format: https://huggingface.co/docs/safetensors (the same limits as the reference implementation: 100 MB of header,
ranges in one piece over the whole data section).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from quantcli import places
from quantcli.container import foreign
from quantcli.errors import MalformedFile, MissingFile, QuantcliError
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.sources.files import SourceFile, StoredTensor, inside, read_small, rows_and_columns, shown
from quantcli.sources.jsonfile import SMALL_JSON, parse_object

_LARGEST_HEADER = 100_000_000  # bytes, the limit of the reference implementation
_LARGEST_NUMBER = (1 << 63) - 1
_MOST_DIMENSIONS = 64  # torch allows no more
_LONGEST_NAME = 1000  # characters
_STEM = "model"
_SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(model)-(\d{5})-of-(\d{5})\.safetensors")

# dtype -> (bits, ggml type or None). Integer types can be read as bytes only.
_DTYPES: dict[str, tuple[int, str | None]] = {
    "F64": (64, "F64"),
    "F32": (32, "F32"),
    "F16": (16, "F16"),
    "BF16": (16, "BF16"),
    "I64": (64, "I64"),
    "I32": (32, "I32"),
    "I16": (16, "I16"),
    "I8": (8, "I8"),
    "U64": (64, None),
    "U32": (32, None),
    "U16": (16, None),
    "U8": (8, None),
    "BOOL": (8, None),
    "C64": (64, None),
    "F8_E4M3": (8, None),
    "F8_E5M2": (8, None),
    "F8_E8M0": (8, None),
    "F8_E4M3FNUZ": (8, None),
    "F8_E5M2FNUZ": (8, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "F4": (4, None),
}


@dataclass(slots=True, eq=False, repr=False)
class SafetensorsFile:
    """One open file: its tensors by name (in file order) and the free-form ``metadata`` of its header."""

    file: SourceFile
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Read and check the header. Raises MissingFile, MalformedFile."""
        file = SourceFile(path)
        try:
            return cls._read(file)
        except QuantcliError:
            file.close()
            raise

    @classmethod
    def _read(cls, file: SourceFile) -> SafetensorsFile:
        where = str(file.path)
        if file.size < 8:
            raise MalformedFile(
                f"only {file.size} bytes: no safetensors file",
                where=where,
                hint="an unfinished download, perhaps: get it again",
            )
        raw, length = _raw_header(file)
        header = parse_object(raw, f"{where}: header", unique_keys=True)
        metadata = header.pop("__metadata__", None)
        tensors = {name: _tensor(file, name, entry, 8 + length) for name, entry in header.items()}
        _check_ranges(tensors.values(), 8 + length, file)
        file.expect(tensor.offset for tensor in tensors.values())
        return cls(file, tensors, metadata if isinstance(metadata, dict) else {})

    def close(self) -> None:
        self.file.close()


def _raw_header(file: SourceFile) -> tuple[bytes, int]:
    """The header as it lies in the file, and its length. Raises MalformedFile, saying what else the file may be."""
    head = bytes(file.read(0, min(foreign.BEGINNING, file.size)))
    length = int.from_bytes(head[:8], "little")
    fits = length <= _LARGEST_HEADER and length + 8 <= file.size
    raw = bytes(file.read(8, length)) if fits else b""
    if raw.startswith(b"{"):
        return raw, length
    what, hint = foreign.recognise(head, file.path, words=True) or (
        None,
        "the file is truncated, or no safetensors file",
    )
    says = "the header is no JSON object" if fits else f"claims a header of {length} bytes; the file has {file.size}"
    raise MalformedFile(
        f"{what}, not a safetensors file: {says}" if what else says,
        where=f"{file.path}: byte {8 if fits else 0}",
        hint=hint,
    )


def open_safetensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of the checkpoint in ``folder``: `model.safetensors`, or the shards that its index lists.

    Raises MissingFile (naming the shard), UnsafePath, MalformedFile, PickleCheckpoint. The files stay open as long
    as the tensors live; `open_files` gives them to close.
    """
    return merge(open_files(folder))


def open_files(folder: Path) -> list[SafetensorsFile]:
    """The open files of the checkpoint in ``folder``, checked against the index if there is one."""
    names, weight_map = _find_files(folder)
    files: list[SafetensorsFile] = []
    try:
        paths = [inside(folder, name) for name in names]
        places.prepare(paths)
        for number, path in enumerate(paths, 1):
            if not places.exists(path):
                raise MissingFile(
                    f"shard {number} of {len(names)} is missing",
                    where=str(path),
                    hint="download the rest of the checkpoint",
                )
            files.append(SafetensorsFile.open(path))
        merged = merge(files)
        if weight_map is not None:
            _check_index(folder / INDEX, weight_map, merged)
        return files
    except QuantcliError:
        for file in files:
            file.close()
        raise


def merge(files: Iterable[SafetensorsFile]) -> dict[str, StoredTensor]:
    """All tensors of several files. Raises MalformedFile for a name in two of them."""
    merged: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in file.tensors.items():
            if name in merged:
                raise MalformedFile(
                    f"tensor {shown(name)} is also in {merged[name].file.name}", where=str(file.file.path)
                )
            merged[name] = tensor
    return merged


def _find_files(folder: Path) -> tuple[list[str], dict[str, str] | None]:
    """The names of the files to read, and the index's weight map (tensor -> file) if they come from one."""
    if places.exists(folder / _SINGLE):  # a dangling link is an error of its own
        return [_SINGLE], None
    if places.exists(folder / INDEX):
        weight_map = _read_index(folder)
        return sorted(set(weight_map.values())), weight_map
    names = _names(folder, ".safetensors")
    shard = next(filter(None, map(_SHARD.fullmatch, names)), None)
    if shard:
        count = int(shard[3])  # all of them are asked for: what is missing is then told by its name
        return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, min(count, 9999) + 1)], None
    own = [name for name in names if name.startswith(_STEM)]
    if own:  # llama.cpp's converter reads all files of this name, whatever follows
        return own, None
    _explain_absence(folder, names)
    return names, None


def _names(folder: Path, *suffixes: str) -> list[str]:
    """Names of the files in ``folder`` that end so, sorted."""
    try:
        return sorted(name for name in places.names(folder) if name.endswith(suffixes))
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be listed", where=str(folder)) from error


def _explain_absence(folder: Path, names: list[str]) -> None:
    """Nothing has a usual name: accept a single file of any name, or say what is there instead."""
    from quantcli.sources import folders  # for messages alone

    found = folders.instead_of_weights(folder)
    if found is not None:
        raise found
    if len(names) == 1:
        return
    if names:
        raise MissingFile(
            f"neither {_SINGLE} nor {INDEX} is here, but {len(names)} other .safetensors files", where=str(folder)
        )
    raise MissingFile(f"no {_SINGLE} and no {INDEX} in this folder", where=str(folder), hint=folders.gguf_hint(folder))


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX
    index = parse_object(read_small(path, SMALL_JSON), str(path), unique_keys=True)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedFile("there is no object `weight_map`", where=str(path))
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise MalformedFile(f"weight_map: the file of {shown(name)} is not a string", where=str(path))
    for file in dict.fromkeys(weight_map.values()):  # a few files, 100,000 tensors
        inside(folder, file)
        if not file.endswith(".safetensors"):
            raise MalformedFile(f"weight_map: {shown(file)} is no .safetensors file", where=str(path))
    return weight_map


def _check_index(path: Path, weight_map: dict[str, str], merged: dict[str, StoredTensor]) -> None:
    """Index and shards must list the same tensors, each in the file the index says."""
    places = {file: Path(os.path.abspath(path.parent / file)) for file in set(weight_map.values())}
    for name, file in weight_map.items():
        tensor = merged.get(name)
        if tensor is None or tensor.file.path != places[file]:
            raise MalformedFile(
                f"tensor {shown(name)} is not in {shown(file)}, where the index puts it",
                where=str(path),
                hint="index and shards do not belong together: download them again",
            )
    extra = [name for name in merged if name not in weight_map]
    if extra:
        raise MalformedFile(
            f"the index lacks {len(extra)} tensors of the shards, such as {shown(extra[0])}",
            where=str(path),
            hint="index and shards do not belong together: download them again",
        )


def _tensor(file: SourceFile, name: str, entry: object, data_start: int) -> StoredTensor:
    """One entry of the header, checked by itself."""

    def bad(what: str) -> MalformedFile:
        return MalformedFile(what, where=f"{file.path}: header: {shown(name)}")

    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise bad("impossible name: empty, endless or unprintable")
    if not isinstance(entry, dict):
        raise bad("not an object")
    dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str):
        raise bad("there is no dtype")
    if shape is None or prod(shape) > _LARGEST_NUMBER:
        raise bad(f"impossible shape {shown(str(entry.get('shape'))[:200])}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise bad(f"impossible data_offsets {shown(str(entry.get('data_offsets'))[:200])}")
    size = offsets[1] - offsets[0]
    bits, type_name = _DTYPES.get(dtype, (None, None))
    if bits is not None and prod(shape) * bits != 8 * size:
        raise bad(f"{dtype} of shape {shape} does not take the {size} bytes of its data_offsets")
    rows, columns = rows_and_columns(shape)
    return StoredTensor(
        name,
        tuple(shape),
        dtype,
        BY_NAME[type_name] if type_name else None,
        file,
        data_start + offsets[0],
        size,
        rows,
        columns,
    )


def _sizes(value: object) -> list[int] | None:
    """``value`` where it is a short list of numbers that can be sizes, else None."""
    if isinstance(value, list) and len(value) <= _MOST_DIMENSIONS:
        sizes = [item for item in value if type(item) is int and 0 <= item <= _LARGEST_NUMBER]
        return sizes if len(sizes) == len(value) else None
    return None


def _check_ranges(tensors: Iterable[StoredTensor], data_start: int, file: SourceFile) -> None:
    """The tensors' ranges follow one another without gap or overlap and fill the data section."""
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != position:
            what = "overlaps the one before" if tensor.offset < position else "leaves a gap"
            raise MalformedFile(
                f"tensor {shown(tensor.name)} starts at byte {tensor.offset} instead of {position}: it {what}",
                where=str(file.path),
            )
        position += tensor.nbytes
    if position != file.size:
        raise MalformedFile(
            f"the tensors end at byte {position}, the file at {file.size}",
            where=str(file.path),
            hint="the file is truncated: get it again" if position > file.size else None,
        )
