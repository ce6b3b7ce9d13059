"""What a source becomes before it is planned: GGUF metadata and named tensors that can be read by rows.

A checkpoint folder becomes a ``Model`` through its family (names, transforms, metadata, vocabulary); a GGUF file
becomes one as it is. Everything behind this point (plan, encode, writer, runner) sees only these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, Protocol

import numpy
from numpy.typing import NDArray

from quantcli import container
from quantcli.container import Value
from quantcli.ggml.tensor_types import TensorType

#: what llama.cpp reads of single tensors: their names, and whether each is multiplied with inputs of 4 bits
TENSOR_EXTRA = ("general.tensor_extra.name", "general.tensor_extra.prec_a4")


class RowReader(Protocol):
    """Lazy access to one two-dimensional view of a tensor: ``rows`` x ``columns``. Thread-safe (``pread``)."""

    def read_rows(self, start: int, stop: int, out: NDArray[numpy.float32] | None = None) -> NDArray[numpy.float32]:
        """Rows ``start`` to ``stop`` as float32, shape (stop - start, columns), into ``out`` if given."""
        ...

    def read_raw(self, start: int, stop: int) -> bytes | memoryview:
        """The stored bytes of these rows in the tensor's ``stored_type``; only when ``ModelTensor.raw`` is true."""
        ...


class Closable(Protocol):
    """Something that holds files open."""

    def check_unchanged(self) -> None: ...

    def identities(self) -> Mapping[str, str]:
        """Every file that weights are read from -> what tells it from another version of it, in words."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False, repr=False)
class ModelTensor:
    """One tensor as the GGUF file will hold it.

    ``shape`` is in GGUF order (columns first); a file may leave trailing ones out. ``type`` is the type that
    llama.cpp's converter with ``--outtype auto`` would write (for a GGUF source: the type in the file). ``stored`` is
    the type of the bytes that ``read_raw`` gives; ``raw`` says that these bytes are the tensor's rows unchanged, so
    that a copy to type ``stored`` needs no decoding. Of 4-bit floats with a factor of their own (NVFP4), ``decoded``
    has the values and the factor is a tensor ``beside`` it. ``targets``, where given, has the type for every file
    type (by name) that such a tensor is written in, and no rule of a recipe speaks of it (projectors, adapters).
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    stored: TensorType
    raw: bool
    reader: RowReader
    origin: str  # where it comes from, for messages: "model-00001-of-00003.safetensors: model.norm.weight"
    shard: int = 0  # index of the source file, for --keep-split
    decoded: ModelTensor | None = None  # the same values for outputs of other types, where ``stored`` is no float
    beside: str = ""  # the tensor whose stored bytes need this one beside them; written only where they are copied
    targets: Mapping[str, TensorType] | None = None
    wide_inputs: bool = False  # of blocks that are copied: llama.cpp is not to multiply them with inputs of 4 bits

    @property
    def columns(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def rows(self) -> int:
        return prod(self.shape[1:])


@dataclass(slots=True, eq=False, repr=False)
class Vocabulary:
    """Where the ``tokenizer.*`` entries of a checkpoint come from.

    ``origin``: a hash of all that decides them: files, configuration, the user's own words. ``unread``, where they were
    put off, gives them and notes for the user; they belong behind the first ``place`` entries of the metadata.
    """

    origin: str
    unread: Callable[[], tuple[dict[str, Value], list[str]]] | None = None
    place: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Model:
    """A whole model: metadata in writing order, tensors, and what has to be told about it.

    ``default_float`` is the type of the first tensor with two or more dimensions (what ``--outtype auto`` means).
    ``follows_converter``: outputs of float types, and copies, are what llama.cpp's converter writes (its F32 rules,
    trailing dimensions of 1 kept, the file type of ``default_float``); for other models they are llama-quantize's.
    ``role``: "text" for a language model, "projector" for what stands before one, "adapter" for what changes one.
    ``notes`` are remarks for the user (left-out vision tensors, ids beyond the vocabulary ...), ``warnings``
    what a user hardly wants: a file that llama.cpp does not load. ``vocabulary``: of a checkpoint's language model.
    """

    name: str
    architecture: str
    metadata: dict[str, Value]
    tensors: list[ModelTensor]
    default_float: TensorType
    kind: str  # "checkpoint" or "gguf": a word for people, nothing depends on it
    follows_converter: bool = False
    files: Sequence[str] = ()  # every file that is read, absolute: an output must be none of them
    weight_files: Sequence[str] = ()  # those of them that hold tensors
    shards: int = 1
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    role: Literal["text", "projector", "adapter"] = "text"
    handles: Sequence[Closable] = ()  # what has to be closed when nothing is read any more
    digests: dict[str, str] = field(default_factory=dict)  # sha256 of ``weight_files``, once they are known
    vocabulary: Vocabulary | None = None

    @property
    def complete(self) -> bool:
        """Whether the metadata have their ``tokenizer.*`` entries, or never will."""
        return self.vocabulary is None or self.vocabulary.unread is None

    def read_vocabulary(self) -> None:
        """Put ``tokenizer.*`` entries that were put off into their place. Raises what ``vocab.load`` raises."""
        if self.vocabulary is None or self.vocabulary.unread is None:
            return
        found, notes = self.vocabulary.unread()
        known = list(self.metadata.items())
        before, behind = dict(known[: self.vocabulary.place]), dict(known[self.vocabulary.place :])
        self.metadata.clear()
        self.metadata.update(before | found | behind)
        self.notes += [text for text in notes if text not in self.notes]
        self.vocabulary.unread = None

    def plain(self) -> Model:
        """The model with the values of all weights in place of blocks that need a factor beside them."""
        tensors = [tensor.decoded or tensor for tensor in self.tensors if not tensor.beside]
        return replace(self, tensors=tensors) if tensors != self.tensors else self

    @property
    def stated_file_type(self) -> int | None:
        """general.file_type, where the source states one that makes sense."""
        stated = self.metadata.get("general.file_type")
        number = stated.data if stated is not None else None
        return number if isinstance(number, int) and 0 <= number < 2**32 else None

    def check_unchanged(self) -> None:
        """Raises SourceChanged where a file that was read is not any more what it was when it was opened."""
        for handle in self.handles:
            handle.check_unchanged()

    def close(self) -> None:
        """Close the source's files. Reading tensors ends here."""
        for handle in self.handles:
            handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def tensor_extra(flags: Mapping[str, bool]) -> dict[str, Value]:
    """The entries of `TENSOR_EXTRA` for these tensors, sorted by name."""
    names = sorted(flags)
    values = (container.strings(names), container.array(container.ValueType.BOOL, [flags[name] for name in names]))
    return dict(zip(TENSOR_EXTRA, values, strict=True))
