"""``tokenizer.model``: pieces, scores and types of a SentencePiece model (BPE or unigram).

The model is a protobuf message (sentencepiece_model.proto). Only the fields that GGUF can hold are read, by our own
bounded reader, so that a broken file is an error with a byte position and never more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from quantcli.errors import BadTokenizer, MalformedFile
from quantcli.vocab import added, protobuf
from quantcli.vocab.token_table import MAX_TOKENS, Table, TokenType
from quantcli.vocab.tokenizer_files import TokenizerFiles

_MAX_FILE = 64 << 20
UNIGRAM, _BPE = 1, 2
_ALGORITHMS = {UNIGRAM: "unigram", _BPE: "BPE", 3: "word", 4: "character"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # SentencePiece.Type

# SentencePiece.Type -> token type; like llama.cpp's converter, which leaves user-defined pieces normal
PIECE_TYPES = {
    _NORMAL: TokenType.NORMAL,
    _UNKNOWN: TokenType.UNKNOWN,
    _CONTROL: TokenType.CONTROL,
    _USER_DEFINED: TokenType.NORMAL,
    _UNUSED: TokenType.UNUSED,
    _BYTE: TokenType.BYTE,
}


@dataclass(slots=True)
class SentencePieceModel:
    """The parts of ModelProto that matter: ``pieces`` are (text, score, SentencePiece.Type)."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    algorithm: int = UNIGRAM
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    charsmap: bytes = b""


def is_text_ranks(data: bytes) -> bool:
    """Is this tiktoken's list of ``base64 rank`` lines, which Llama 3 ships under the same name?"""
    first = data[:200].split(b"\n", 1)[0].split(b" ")
    return len(first) == 2 and first[1].strip().isdigit() and first[0].isascii() and b"\x00" not in first[0]


def parse(data: bytes, where: str) -> SentencePieceModel:
    """Read a ModelProto. Raises MalformedFile (with the byte) or BadTokenizer."""
    if len(data) > _MAX_FILE:
        raise BadTokenizer(f"{len(data):,} bytes are too many for a tokenizer", where=where)
    model = SentencePieceModel()
    for number, _, value, at in protobuf.fields(memoryview(data), where):
        if number not in (1, 2, 3):
            continue
        if isinstance(value, int):
            raise MalformedFile(f"field {number} is no message", where=f"{where}, byte {at}")
        if number == 1:
            if len(model.pieces) >= MAX_TOKENS:
                raise BadTokenizer(f"more than {MAX_TOKENS:,} pieces", where=where)
            model.pieces.append(_piece(value, f"{where}: piece {len(model.pieces)}", at))
        elif number == 2:
            model.algorithm = _number(value, 3, where, at, model.algorithm)
        else:
            model.add_dummy_prefix = bool(_number(value, 3, where, at, 1))
            model.remove_extra_whitespaces = bool(_number(value, 4, where, at, 1))
            model.charsmap = _bytes(value, 2, where, at)
    if not model.pieces:
        raise BadTokenizer("the model holds no pieces", where=where)
    return model


def _number(message: memoryview, wanted: int, where: str, base: int, default: int) -> int:
    """The number in field ``wanted`` of a message; the last one counts."""
    result = default
    for number, _, value, at in protobuf.fields(message, where, base):
        if number == wanted:
            if not isinstance(value, int):
                raise _wrong_kind(number, where, at)
            result = value
    return result


def _bytes(message: memoryview, wanted: int, where: str, base: int) -> bytes:
    """The bytes in field ``wanted`` of a message; the last ones count."""
    result = b""
    for number, _, value, at in protobuf.fields(message, where, base):
        if number == wanted:
            if isinstance(value, int):
                raise _wrong_kind(number, where, at)
            result = bytes(value)
    return result


def _wrong_kind(number: int, where: str, at: int) -> MalformedFile:
    return MalformedFile(f"field {number} is of the wrong kind", where=f"{where}, byte {at}")


def _piece(message: memoryview, where: str, base: int) -> tuple[str, float, int]:
    """One SentencePiece: text, score, type."""
    text, score, kind = "", 0.0, _NORMAL
    for number, wire, value, at in protobuf.fields(message, where, base):
        if number == 1 and not isinstance(value, int):
            try:
                text = bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise MalformedFile("the text is not UTF-8", where=f"{where}, byte {at}") from None
        elif number == 2 and isinstance(value, int) and wire == protobuf.FIXED32:
            score = protobuf.float32(value)
        elif number == 3 and isinstance(value, int) and wire == protobuf.VARINT:
            kind = value
        elif number in (1, 2, 3):
            raise _wrong_kind(number, where, at)
    if kind not in PIECE_TYPES or not math.isfinite(score):
        raise MalformedFile(f"piece {text[:40]!r} has type {kind} and score {score}", where=f"{where}, byte {base}")
    return text, score, kind


def _fill(table: Table, model: SentencePieceModel, files: TokenizerFiles, unused: str | None) -> None:
    """Put the pieces and the added tokens into the table, in llama.cpp's order."""
    for index, (text, score, kind) in enumerate(model.pieces):
        idle = unused is not None and text.startswith(unused)
        table.put(index, text, score, TokenType.UNUSED if idle else PIECE_TYPES[kind])
    added.fill(table, files, {text: index for index, (text, _, _) in enumerate(model.pieces)}, replacing=True)


def load(
    data: bytes, size: int | None, files: TokenizerFiles, where: str, unused: str | None = None
) -> tuple[Table, SentencePieceModel]:
    """The table of a ``llama`` vocabulary and the model it came from; pieces that begin with ``unused`` are so."""
    model = parse(data, where)
    if model.algorithm not in (UNIGRAM, _BPE):
        name = _ALGORITHMS.get(model.algorithm, str(model.algorithm))
        raise BadTokenizer(f"a SentencePiece model of kind {name} has no GGUF form", where=where)
    table = Table(size, where)
    _fill(table, model, files, unused)
    return table, model
