"""PLaMo 2's vocabulary: one JSON array a line, ``[text, score, type, ...]``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from quantcli.errors import BadTokenizer
from quantcli.vocab.token_table import ADDED_SCORE, MAX_TOKENS, Table, TokenType
from quantcli.vocab.tokenizer_files import Folder

FILE = "tokenizer.jsonl"
IDS: Mapping[str, int] = {"eot": 4}  # <|plamo:op|>, which opens the next turn
_TYPES = {"UNKNOWN": TokenType.UNKNOWN, "CONTROL": TokenType.CONTROL, "BYTE": TokenType.BYTE}


def load(checkpoint: Folder, size: int | None) -> Table:
    """The table of the file; ids beyond it become unused ``[PAD1]``, ``[PAD2]``, ..."""
    content = checkpoint.text(FILE)
    if content is None:
        raise BadTokenizer("the list of pieces is not there", where=FILE)
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    if len(lines) > MAX_TOKENS:
        raise BadTokenizer(f"more than {MAX_TOKENS:,} pieces", where=FILE)
    table = Table(size, FILE)
    for index, (number, line) in enumerate(lines):
        table.put(index, *_entry(line, f"{FILE}, line {number}"))
    for index in range(len(lines), size or 0):
        table.put(index, f"[PAD{index - len(lines) + 1}]", ADDED_SCORE, TokenType.UNUSED)
    return table


def _entry(line: str, where: str) -> tuple[str, float, TokenType]:
    """Text, score and type of a line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, list) or len(row) < 2 or not isinstance(row[0], str):
        raise BadTokenizer("expected an array of text, score and type", where=where)
    text, score, kind = row[0], row[1], row[2] if len(row) > 2 else "NORMAL"
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        raise BadTokenizer(f"the score of {text[:40]!r} is no number", where=where)
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    marked = text.startswith("<|plamo:") and text.endswith("|>")
    return text, float(score), known or (TokenType.CONTROL if marked else TokenType.NORMAL)
