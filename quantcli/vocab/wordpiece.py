"""WordPiece vocabularies (BERT): tokens in llama.cpp's form, where word starts carry U+2581 and ``##`` is dropped."""

from __future__ import annotations

from quantcli.container import Value, boolean
from quantcli.vocab import added
from quantcli.vocab.token_table import Table, TokenType, added_kind
from quantcli.vocab.tokenizer_files import TokenizerFiles, flat_steps, vocabulary


def load(size: int | None, files: TokenizerFiles) -> tuple[Table, dict[str, Value]]:
    """The table and the entries that only this kind has."""
    table = Table(size, "tokenizer.json")
    vocab = vocabulary(files.model, "tokenizer.json: model.vocab")
    for text, index in vocab.items():
        table.put(index, _phantom(text), 0.0, TokenType.NORMAL)
    for token in added.settled(files, vocab):
        text, kind = added_kind(token.content, token.special)
        plain = kind == TokenType.CONTROL and f"##{text}" not in vocab  # that one is stored as `text` already
        table.put(token.id, text if plain else _phantom(text), 0.0, kind)
    extra: dict[str, Value] = {}
    for step in flat_steps(files.tokenizer, "normalizer", "normalizers"):
        lowercase, strip = step.get("lowercase"), step.get("strip_accents")
        if step.get("type") == "BertNormalizer" and isinstance(lowercase, bool):
            extra["normalizer.lowercase"] = boolean(lowercase)
        if isinstance(strip, bool):
            extra["normalizer.strip_accents"] = boolean(strip)
    return table, extra


def _phantom(text: str) -> str:
    """``##ing`` -> ``ing``, ``walk`` -> ``▁walk``; a token in square brackets stays."""
    if text.startswith("[") and text.endswith("]"):
        return text
    return text.removeprefix("##") if text.startswith("##") else f"\u2581{text}"
