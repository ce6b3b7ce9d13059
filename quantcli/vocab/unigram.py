"""Unigram vocabularies (T5, XLM-RoBERTa and their like) become ``t5`` vocabularies with their character map.

The pieces come from a SentencePiece file or from tokenizer.json. Models that were made with fairseq number the pieces
of their SentencePiece file otherwise: four tokens of their own stand in front, in place of the file's first three.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence

import numpy

from quantcli.container import Value, ValueType, array, boolean
from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import text_in
from quantcli.vocab import added, sentencepiece
from quantcli.vocab.token_table import UNUSED_SCORE, Table, TokenType
from quantcli.vocab.tokenizer_files import TokenizerFiles, expect, flat_steps

_JSON = "tokenizer.json: model.vocab"
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
_REPLACED = 3  # pieces of the file that these stand for
_UNKNOWN_ID = 3  # where tokenizer.json has no unk_id

Extra = dict[str, Value]


def load(data: bytes, where: str, size: int | None, files: TokenizerFiles, *, fairseq: bool) -> tuple[Table, Extra]:
    """The table and the entries that only this kind has. Added tokens keep the score of their piece."""
    model = sentencepiece.parse(data, where)
    if model.algorithm != sentencepiece.UNIGRAM:
        raise BadTokenizer("the SentencePiece model is not of the unigram kind", where=where)
    table = Table(size, where)
    if fairseq:
        _fill_fairseq(table, model.pieces)
    else:
        for index, (text, score, kind) in enumerate(model.pieces):
            table.put(index, text, score, sentencepiece.PIECE_TYPES[kind])
        added.fill(table, files, {text: index for index, (text, _, _) in enumerate(model.pieces)}, replacing=False)
    return table, _extra(model.add_dummy_prefix, model.remove_extra_whitespaces, model.charsmap)


def _fill_fairseq(table: Table, pieces: Sequence[tuple[str, float, int]]) -> None:
    """fairseq's four tokens, the pieces behind the first three, and unused ones up to the number of rows.

    llama.cpp's converter numbers the unused ones before it moves them by one, so their names are one behind.
    """
    for index, text in enumerate(_FAIRSEQ):
        table.put(index, text, 0.0, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL)
    shift = len(_FAIRSEQ) - _REPLACED
    rows = max(table.size or 0, len(pieces))
    for index in range(_REPLACED, rows - shift):
        if index < len(pieces):
            text, score, kind = pieces[index]
            table.put(index + shift, text, score, sentencepiece.PIECE_TYPES[kind])
        else:
            table.put(index + shift, f"[PAD{index}]", UNUSED_SCORE, TokenType.UNUSED)


def load_json(size: int | None, files: TokenizerFiles) -> tuple[Table, Extra]:
    """The same from the Unigram model of tokenizer.json: its ids are those that the model was trained with."""
    if files.model.get("type") != "Unigram":
        raise BadTokenizer("a unigram tokenizer needs its SentencePiece file, which is not there", where="spiece.model")
    pieces = [_piece(entry, index) for index, entry in enumerate(expect(files.model.get("vocab"), list, _JSON))]
    unknown = files.model.get("unk_id", _UNKNOWN_ID)
    special = {token.id for token in files.added if token.special}
    special_texts = set(added.named_special(files))
    plain = {token.id for token in files.added}
    table = Table(size, "tokenizer.json")
    for index, (text, score) in enumerate(pieces):
        kind = TokenType.USER_DEFINED if index in plain else TokenType.NORMAL
        kind = TokenType.CONTROL if index in special or text in special_texts else kind
        table.put(index, text, score, TokenType.UNKNOWN if index == unknown else kind)
    for token in files.added:
        if token.id >= len(pieces):
            table.put(token.id, token.content, 0.0, TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    return table, _extra(_adds_prefix(files), _removes_blanks(files), _charsmap(files))


def _piece(entry: object, index: int) -> tuple[str, float]:
    """One ``[text, score]``."""
    where = f"{_JSON}[{index}]"
    pair = expect(entry, list, where)
    if len(pair) != 2 or not isinstance(pair[0], str) or isinstance(pair[1], bool):
        raise BadTokenizer("expected a text and a score", where=where)
    if not isinstance(pair[1], (int, float)) or not math.isfinite(pair[1]):
        raise BadTokenizer("the score is no number", where=where)
    return pair[0], float(pair[1])


def _adds_prefix(files: TokenizerFiles) -> bool:
    """What llama.cpp's converter takes from the class: ``add_prefix_space`` of tokenizer_config.json."""
    return files.config.get("add_prefix_space") is True


def _removes_blanks(files: TokenizerFiles) -> bool:
    """Runs of blanks become one: where the words are cut at white space, or the class says that it cleans up."""
    steps = flat_steps(files.tokenizer, "pre_tokenizer", "pretokenizers")
    cuts = any(step.get("type") == "WhitespaceSplit" for step in steps)
    return cuts or files.config.get("clean_up_tokenization_spaces") is True


def _charsmap(files: TokenizerFiles) -> bytes:
    """The character map of a Precompiled normalizer."""
    for step in flat_steps(files.tokenizer, "normalizer", "normalizers"):
        content = text_in(step, "precompiled_charsmap")
        if content is not None:
            try:
                return base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                where = "tokenizer.json: normalizer.precompiled_charsmap"
                raise BadTokenizer("the character map is no base64", where=where) from None
    return b""


def _extra(prefix: bool, remove_blanks: bool, charsmap: bytes) -> Extra:
    """The entries of this kind alone."""
    extra = {"add_space_prefix": boolean(prefix), "remove_extra_whitespaces": boolean(remove_blanks)}
    if charsmap:
        extra["precompiled_charsmap"] = array(ValueType.UINT8, numpy.frombuffer(charsmap, numpy.uint8))
    return extra
