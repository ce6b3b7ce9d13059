"""``tokenizer.model``: pieces, scores and types of a SentencePiece model (BPE or unigram).

The model is a protobuf message (sentencepiece_model.proto). Only the fields that GGUF can hold are read, by our own
bounded reader, so that a broken file is an error with a byte position and never more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from quantcli.errors import BadTokenizer, MalformedFile
from quantcli.vocab import protobuf
from quantcli.vocab.table import ADDED_SCORE, MAX_TOKENS, Table, TokenType, added_kind
from quantcli.vocab.tokenizer_files import TokenizerFiles

MAX_FILE = 64 << 20
UNIGRAM, BPE = 1, 2
ALGORITHMS = {UNIGRAM: "unigram", BPE: "BPE", 3: "word", 4: "character"}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # SentencePiece.Type

# SentencePiece.Type -> token type; like llama.cpp's converter, which leaves user-defined pieces normal
PIECE_TYPES = {
    NORMAL: TokenType.NORMAL,
    UNKNOWN: TokenType.UNKNOWN,
    CONTROL: TokenType.CONTROL,
    USER_DEFINED: TokenType.NORMAL,
    UNUSED: TokenType.UNUSED,
    BYTE: TokenType.BYTE,
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
    if len(data) > MAX_FILE:
        raise BadTokenizer(f"{len(data):,} bytes are too many for a tokenizer", where=where)
    model = SentencePieceModel()
    for number, wire, value, at in protobuf.fields(memoryview(data), where):
        if number not in (1, 2, 3):
            continue
        if wire != protobuf.LENGTH:
            raise MalformedFile(f"field {number} is no message", where=f"{where}, byte {at}")
        if number == 1:
            if len(model.pieces) >= MAX_TOKENS:
                raise BadTokenizer(f"more than {MAX_TOKENS:,} pieces", where=where)
            model.pieces.append(piece(value, f"{where}: piece {len(model.pieces)}", at))
        elif number == 2:
            model.algorithm = int(scalar(value, 3, where, at, model.algorithm))
        else:
            model.add_dummy_prefix = bool(scalar(value, 3, where, at, True))
            model.remove_extra_whitespaces = bool(scalar(value, 4, where, at, True))
            model.charsmap = bytes(scalar(value, 2, where, at, b""))
    if not model.pieces:
        raise BadTokenizer("the model holds no pieces", where=where)
    return model


def scalar(message: memoryview, wanted: int, where: str, base: int, default: Any) -> Any:
    """Field ``wanted`` of a message, the last one counts; its kind must be that of ``default``."""
    result = default
    for number, _, value, at in protobuf.fields(message, where, base):
        if number == wanted:
            if isinstance(value, int) != isinstance(default, int):
                raise MalformedFile(f"field {number} is of the wrong kind", where=f"{where}, byte {at}")
            result = value
    return result


def piece(message: memoryview, where: str, base: int) -> tuple[str, float, int]:
    """One SentencePiece: text, score, type."""
    text, score, kind = "", 0.0, NORMAL
    for number, wire, value, at in protobuf.fields(message, where, base):
        if number == 1 and wire == protobuf.LENGTH:
            try:
                text = bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise MalformedFile("the text is not UTF-8", where=f"{where}, byte {at}") from None
        elif number == 2 and wire == protobuf.FIXED32:
            score = protobuf.float32(value)
        elif number == 3 and wire == protobuf.VARINT:
            kind = value
        elif number in (1, 2, 3):
            raise MalformedFile(f"field {number} is of the wrong kind", where=f"{where}, byte {at}")
    if kind not in PIECE_TYPES or not math.isfinite(score):
        raise MalformedFile(f"piece {text[:40]!r} has type {kind} and score {score}", where=f"{where}, byte {base}")
    return text, score, kind


def fill(table: Table, model: SentencePieceModel, files: TokenizerFiles) -> None:
    """Put pieces, then added_tokens.json, then the list of tokenizer_config.json into the table (FACTS order)."""
    for index, (text, score, kind) in enumerate(model.pieces):
        table.put(index, text, score, PIECE_TYPES[kind])
    for text, index in files.texts.items():
        table.put(index, text, ADDED_SCORE, TokenType.USER_DEFINED)
    for token in files.listed:
        text, token_type = added_kind(token.content, token.special)
        table.put(token.id, text, ADDED_SCORE, token_type)


def load(data: bytes, size: int | None, files: TokenizerFiles, where: str) -> tuple[Table, SentencePieceModel]:
    """The table of a ``llama`` vocabulary and the model it came from."""
    model = parse(data, where)
    if model.algorithm not in (UNIGRAM, BPE):
        name = ALGORITHMS.get(model.algorithm, str(model.algorithm))
        raise BadTokenizer(f"a SentencePiece model of kind {name} has no GGUF form", where=where)
    table = Table(size if size is not None else natural_size(model, files), where)
    fill(table, model, files)
    return table, model


def natural_size(model: SentencePieceModel, files: TokenizerFiles) -> int:
    """One more than the largest id that any file names."""
    ids = [*files.texts.values(), *(token.id for token in files.listed), len(model.pieces) - 1]
    return max(ids) + 1
