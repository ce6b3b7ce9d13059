"""What a source becomes before it is planned: GGUF metadata and named tensors that can be read by rows.

A checkpoint folder becomes a ``Model`` through its family (names, transforms, metadata, vocabulary); a GGUF file
becomes one as it is. Everything behind this point (plan, encode, writer, runner) sees only these classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy

    from quantcli.container import Value
    from quantcli.ggml.tensor_types import TensorType


class RowReader(Protocol):
    """Lazy access to one two-dimensional view of a tensor: ``rows`` x ``columns``. Thread-safe (``pread``)."""

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        """Rows ``start`` to ``stop`` as float32, shape (stop - start, columns), into ``out`` if given."""
        ...

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        """The stored bytes of these rows in the tensor's ``stored_type``; only when ``ModelTensor.raw`` is true."""
        ...


@dataclass(slots=True)
class ModelTensor:
    """One tensor as the GGUF file will hold it.

    ``shape`` is in GGUF order (columns first); a file may leave trailing ones out. ``type`` is the type that llama.cpp's converter
    with ``--outtype auto`` would write (for a GGUF source: the type in the file). ``stored`` is the type of the
    bytes that ``read_raw`` gives; ``raw`` says that these bytes are the tensor's rows unchanged, so that a copy to
    type ``stored`` needs no decoding.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    stored: TensorType
    raw: bool
    reader: RowReader
    origin: str  # where it comes from, for messages: "model-00001-of-00003.safetensors: model.norm.weight"
    shard: int = 0  # index of the source file, for --keep-split

    @property
    def columns(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def rows(self) -> int:
        return prod(self.shape[1:])


@dataclass(slots=True)
class Model:
    """A whole model: metadata in writing order, tensors, and what has to be told about it.

    ``default_float`` is the type of the first tensor with two or more dimensions (what ``--outtype auto`` means).
    ``notes`` are remarks for the user (left-out vision tensors, ids beyond the vocabulary ...).
    """

    name: str
    architecture: str
    metadata: dict[str, Value]
    tensors: list[ModelTensor]
    default_float: TensorType
    kind: str  # "checkpoint" or "gguf"
    files: Sequence[str] = ()  # every file that is read, absolute: an output must be none of them
    shards: int = 1
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    handles: Sequence[Any] = ()  # what has to be closed when nothing is read any more

    def close(self) -> None:
        """Close the source's files. Reading tensors ends here."""
        for handle in self.handles:
            handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def number(self, key: str, default: int = 0) -> int:
        """Integer metadata ``<architecture>.<key>``; element 0 of a per-layer array."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if value is None:
            return default
        data = value.data
        return int(data if not hasattr(data, "__len__") else data[0])
