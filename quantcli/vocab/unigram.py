"""Unigram vocabularies (T5 and its like): spiece.model becomes a ``t5`` vocabulary with its character map."""

from __future__ import annotations

import numpy

from quantcli.container import Value, ValueType, array, boolean
from quantcli.errors import BadTokenizer
from quantcli.vocab import added, sentencepiece
from quantcli.vocab.token_table import Table
from quantcli.vocab.tokenizer_files import TokenizerFiles


def load(data: bytes | None, where: str, size: int | None, files: TokenizerFiles) -> tuple[Table, dict[str, Value]]:
    """The table and the entries that only this kind has. Added tokens keep the score of their piece."""
    if data is None:
        raise BadTokenizer("a unigram tokenizer needs its SentencePiece file, which is not there", where="spiece.model")
    model = sentencepiece.parse(data, where)
    if model.algorithm != sentencepiece.UNIGRAM:
        raise BadTokenizer("the SentencePiece model is not of the unigram kind", where=where)
    table = Table(size, where)
    for index, (text, score, kind) in enumerate(model.pieces):
        table.put(index, text, score, sentencepiece.PIECE_TYPES[kind])
    added.fill(table, files, {text: index for index, (text, _, _) in enumerate(model.pieces)}, replacing=False)
    extra = {
        "add_space_prefix": boolean(model.add_dummy_prefix),
        "remove_extra_whitespaces": boolean(model.remove_extra_whitespaces),
    }
    if model.charsmap:
        extra["precompiled_charsmap"] = array(ValueType.UINT8, numpy.frombuffer(model.charsmap, numpy.uint8))
    return table, extra
