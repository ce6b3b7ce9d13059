"""Where planned tensors lie: shards, offsets, headers and file sizes to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from quantcli import container
from quantcli.container import Value, i32, padded, shard_name, string, u16
from quantcli.errors import UsageError
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import ModelTensor

ALIGNMENT = 32  # of every output, whatever the source used
SOURCE_WEIGHTS, SOURCE_SHA256 = "quantcli.source.weights", "quantcli.source.sha256."  # files, and the hash of each
MOST_SHARDS = 65_535  # split.count is u16


class PlannedTensor(NamedTuple):
    """One tensor of an output. ``wanted`` is the type before the shape fallback, None where there was none.

    ``bytes`` is unpadded; ``offset`` counts from the start of the data of shard number ``shard``.
    """

    tensor: ModelTensor
    type: TensorType
    wanted: TensorType | None
    bytes: int
    shard: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shard:
    """One file of an output: its metadata, tensors in file order, and sizes in bytes."""

    metadata: dict[str, Value]
    entries: Sequence[PlannedTensor]
    header_bytes: int
    data_bytes: int  # with the padding after every tensor
    keep_ones: bool = False  # trailing dimensions of 1 are written

    @property
    def file_bytes(self) -> int:
        return self.header_bytes + self.data_bytes

    def header(self) -> bytes:
        """The header as it is written, padding up to the data included."""
        tensors = [(e.tensor.name, e.tensor.shape, e.type.id, e.offset) for e in self.entries]
        return container.encode_header(self.metadata, tensors, alignment=ALIGNMENT, keep_ones=self.keep_ones)


def _header_size(metadata: Mapping[str, Value], entries: Sequence[PlannedTensor], keep_ones: bool) -> int:
    tensors = [(e.tensor.name, e.tensor.shape) for e in entries]
    return container.header_size(metadata, tensors, ALIGNMENT, keep_ones=keep_ones)


def place(
    chosen: Iterable[tuple[ModelTensor, TensorType, TensorType | None, int]], largest: int | None, keep: bool
) -> Iterator[PlannedTensor]:
    """Give every (tensor, type, wanted, bytes) its shard and offset.

    A new shard starts when the current one is not empty and the tensor would bring its data above ``largest`` bytes
    (unpadded, as llama.cpp's converter counts); with ``keep`` every tensor stays in the shard of its number.
    """
    shard = offset = filled = 0
    for tensor, tensor_type, wanted, size in chosen:
        following = shard
        if keep:
            following = tensor.shard
        elif largest is not None and filled and filled + size > largest:
            following = shard + 1
        if following != shard:
            shard, offset, filled = following, 0, 0
        yield PlannedTensor(tensor, tensor_type, wanted, size, shard, offset)
        offset += padded(size)
        filled += size


def build(
    metadata: dict[str, Value],
    entries: Sequence[PlannedTensor],
    at_least: int = 1,
    keep_ones: bool = False,
    marked: Mapping[str, Value] | None = None,
) -> list[Shard]:
    """The files of an output. Shard 0 carries the metadata; with several, each carries its number, and a mark of the
    whole plan, for which ``marked`` may stand in place of the metadata.

    ``keep_ones``: shapes are written with trailing dimensions of 1, as llama.cpp's converter does and ggml does not.
    """
    count = max(at_least, entries[-1].shard + 1 if entries else 1)
    if count > MOST_SHARDS:
        raise UsageError(
            f"{count} shards are more than GGUF can number ({MOST_SHARDS})",
            where="--split-max-size",
            hint="choose a larger size",
        )
    groups: list[list[PlannedTensor]] = [[] for _ in range(count)]
    for entry in entries:
        groups[entry.shard].append(entry)
    shards = []
    mark = _set_mark(metadata if marked is None else marked, entries, count) if count > 1 else ""
    for index, group in enumerate(groups):
        own = dict(metadata) if index == 0 else {}
        if count > 1:
            own[container.SET_KEY] = string(mark)
            own["split.no"] = u16(index)
            own["split.count"] = u16(count)
            own["split.tensors.count"] = i32(len(entries))
        data = group[-1].offset + padded(group[-1].bytes) if group else 0
        shards.append(Shard(own, group, _header_size(own, group, keep_ones), data, keep_ones))
    return shards


def _set_mark(metadata: Mapping[str, Value], entries: Sequence[PlannedTensor], count: int) -> str:
    """A hash of the whole plan, the same in all shards of an output: shards of two conversions are told apart.

    Without the hashes of the weights' files, which the first shard tells: of sixteen workers one has to know them.
    """
    listed = metadata.get(SOURCE_WEIGHTS)
    names = listed.data if listed is not None and isinstance(listed.data, container.Strings) else ()
    hashes = {f"{SOURCE_SHA256}{name}" for name in names}
    told = {key: value for key, value in metadata.items() if key not in hashes}
    header = container.encode_header(told, [], alignment=ALIGNMENT)
    digest = hashlib.sha256(header)
    rows = [f"{e.tensor.name} {e.tensor.shape} {e.type.id} {e.shard} {e.offset}\n" for e in entries]
    digest.update(f"{''.join(rows)}{count}".encode())
    return digest.hexdigest()


def file_names(path: Path, count: int) -> list[Path]:
    """The files of an output at ``path``: itself, or ``<stem>-00001-of-0000N.gguf`` for several shards."""
    if count == 1:
        return [path]
    stem = path.stem if path.suffix.lower() == ".gguf" else path.name
    return [path.with_name(shard_name(stem, index, count)) for index in range(count)]
