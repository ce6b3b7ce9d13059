"""Rows of the language model's embedding that a projector's file holds as tensors of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from quantcli.errors import BadTokenizer, MissingTensors, UsageError
from quantcli.families.projectors.declaration import Projector, TokenRow
from quantcli.families.written import types_of
from quantcli.model import ModelTensor
from quantcli.sources.jsonfile import object_in

if TYPE_CHECKING:
    from quantcli.sources.checkpoint import Checkpoint
    from quantcli.sources.tensor import SourceTensor

_EMBEDDING = "embed_tokens.weight"
#: names with this part never reach the place in llama.cpp's converter that takes the row (that of llama-cpp-python
#: 0.3.36): today's checkpoints call the language model so, and their projectors are written without it
_PASSED_OVER = "language_model."


def add(checkpoint: Checkpoint, projector: Projector, tensors: list[ModelTensor], wanted: bool) -> list[str]:
    """Append the row that the projector declares to ``tensors``; warnings where a file without it is no use.

    As llama.cpp's converter does, and wherever there is such a row if it is ``wanted``. Raises UsageError where the
    projector declares none, BadTokenizer and MissingTensors where the checkpoint has none.
    """
    row = projector.row
    if row is None:
        if wanted:
            raise UsageError(
                f"--image-break is for Pixtral's projectors, and this is {projector.name}",
                where=str(checkpoint.folder),
                hint="leave it out",
            )
        return []
    embedding = next((one for one in checkpoint.logical_tensors if one.name.endswith(_EMBEDDING)), None)
    number = _number(checkpoint, row.token)
    if wanted:
        _check(checkpoint, row, embedding, number)
    if embedding is None or number is None or not 0 < number < embedding.shape[0]:
        return [f"{_needs(row)}, which this checkpoint has not: llama.cpp does not load the file"]
    if not wanted and _PASSED_OVER in embedding.name:
        return [f"{_needs(row)}, which its own converter leaves out: --image-break writes it"]
    tensors.append(_tensor(checkpoint, row, embedding, number))
    return []


def _needs(row: TokenRow) -> str:
    return f"llama.cpp's mtmd wants the embedding of {row.token} in a projector of this kind ({row.target})"


def _check(checkpoint: Checkpoint, row: TokenRow, embedding: SourceTensor | None, number: int | None) -> None:
    """Raises BadTokenizer, MissingTensors."""
    hint = "leave out --image-break: the file is then as llama.cpp's converter writes it, which its mtmd does not load"
    if embedding is None:
        raise MissingTensors(f"--image-break needs {_EMBEDDING}", where=str(checkpoint.folder), hint=hint)
    if number is None:
        raise BadTokenizer(f"no token {row.token!r}, whose row is wanted", where=str(checkpoint.folder), hint=hint)
    if not 0 < number < embedding.shape[0]:
        raise BadTokenizer(
            f"the token {row.token!r} has the id {number}; there are {embedding.shape[0]} rows",
            where=embedding.where,
            hint=hint,
        )


def _tensor(checkpoint: Checkpoint, row: TokenRow, embedding: SourceTensor, number: int) -> ModelTensor:
    from quantcli.views import Decoded, Span

    reader = embedding.exact or embedding.reader()
    if reader.stored.quantized:
        reader = Decoded(reader)
    reader = Span(reader, number, number + 1)
    shape = (reader.columns,)
    targets = types_of(row.target, shape)
    return ModelTensor(
        name=row.target,
        shape=shape,
        type=targets["F32"],
        stored=reader.stored,
        raw=reader.raw,
        reader=reader,
        origin=f"{embedding.origin}, row {number}",
        shard=checkpoint.tensor_files.index(embedding.file.name),
        targets=targets,
    )


def _number(checkpoint: Checkpoint, token: str) -> int | None:
    """The id of an added token, as the first of the tokenizer's files says that has it."""
    for name, pairs in _FILES.items():
        content = checkpoint.json(name)
        if isinstance(content, Mapping):
            found = next((number for text, number in pairs(content) if text == token), None)
            if found is not None:
                return found
    return None


def _listed(key: str, text: str, number: str) -> Callable[[Mapping[str, object]], Iterator[tuple[object, int]]]:
    """(text, id) of the objects in the list ``key``."""

    def pairs(content: Mapping[str, object]) -> Iterator[tuple[object, int]]:
        listed = content.get(key)
        for one in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
            if isinstance(one, Mapping) and type(one.get(number)) is int:
                yield one.get(text), one[number]

    return pairs


def _decoder(content: Mapping[str, object]) -> Iterator[tuple[object, int]]:
    for number, one in object_in(content, "added_tokens_decoder").items():
        if isinstance(one, Mapping) and number.isascii() and number.isdigit():
            yield one.get("content"), int(number[:10])


_FILES: Mapping[str, Callable[[Mapping[str, object]], Iterator[tuple[object, int]]]] = {
    "tokenizer_config.json": _decoder,
    "tokenizer.json": _listed("added_tokens", "content", "id"),
    "tekken.json": _listed("special_tokens", "token_str", "rank"),
}
