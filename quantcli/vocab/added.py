"""Added tokens: which id each of them has, and which are special, where several files speak of them.

As transformers builds its ``added_tokens_decoder``: a text that the vocabulary holds keeps the vocabulary's id;
tokenizer_config.json replaces what tokenizer.json says of a token; whatever the configuration names as a special token
is one, also a token of the plain vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from quantcli.sources.jsonfile import text_in
from quantcli.vocab.token_table import ADDED_SCORE, Table, TokenType, added_kind
from quantcli.vocab.tokenizer_files import AddedToken, TokenizerFiles

# settings of tokenizer_config.json and special_tokens_map.json that list special tokens (by name, or without)
_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")


def named_special(files: TokenizerFiles) -> list[str]:
    """Texts that the configuration names as special tokens, each once, those with a name of their own first.

    special_tokens_map.json counts where tokenizer_config.json has no ``added_tokens_decoder``, as in transformers.
    """
    sources = [files.config] if files.listed else [files.config, files.special_map]
    own = (entry for source in sources for key, entry in source.items() if key.endswith("_token"))
    listed = (entry for source in sources for name in _LISTS for entry in _entries(source.get(name)))
    texts = (_text(entry) for entry in (*own, *listed))
    return list(dict.fromkeys(text for text in texts if text))


def _entries(value: object) -> Iterator[object]:
    """The entries of a list of tokens, or of an object name -> token."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _text(entry: object) -> str | None:
    """The text of a token that is given as a text or as an object with ``content``; None for anything else."""
    return entry if isinstance(entry, str) else text_in(entry, "content")


def of_all_files(files: TokenizerFiles) -> list[AddedToken]:
    """What tokenizer.json, tokenizer_config.json and, without tokenizer.json, added_tokens.json say, in this order.

    Where tokenizer.json has another token under an id than tokenizer_config.json, tokenizer.json is right.
    """
    found = {token.id: token for token in files.added}
    for token in files.listed:
        if token.id not in found or found[token.id].content == token.content:
            found[token.id] = token
    if not files.tokenizer:
        for text, index in files.texts.items():
            found.setdefault(index, AddedToken(index, text, False, False))
    return list(found.values())


def settle(tokens: Iterable[AddedToken], vocab: Mapping[str, int], special: Iterable[str]) -> list[AddedToken]:
    """``tokens`` with one id for each text: the vocabulary's, or the first that is stated; the last one's flags count.

    The texts ``special`` are marked so. One that is no token yet becomes one: with its id in ``vocab``, else behind
    the largest id.
    """
    found: dict[str, AddedToken] = {}
    for token in tokens:
        first = found.get(token.content, token)
        found[token.content] = replace(token, id=vocab.get(token.content, first.id))
    following = 1 + max([*(token.id for token in found.values()), *vocab.values()], default=-1)
    for text in special:
        known = found.get(text)
        index = known.id if known else vocab.get(text, following)
        following += index == following
        found[text] = replace(known, special=True) if known else AddedToken(index, text, True, False)
    return list(found.values())


def settled(files: TokenizerFiles, vocab: Mapping[str, int]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json (or vocab.json) whose own vocabulary is ``vocab``."""
    return settle(of_all_files(files), vocab, named_special(files))


def fill(table: Table, files: TokenizerFiles, vocab: Mapping[str, int], *, replacing: bool) -> None:
    """Put the added tokens of all files into the table of a SentencePiece model whose pieces are ``vocab``.

    added_tokens.json goes first, then tokenizer_config.json, which replaces pieces where ``replacing``. tokenizer.json
    fills ids that are still free; what is named as special and is no piece of another kind becomes a control token.
    """
    special = named_special(files)
    listed = {token.content for token in files.listed}
    for text, index in files.texts.items():
        table.put(vocab.get(text, index), text, ADDED_SCORE, TokenType.USER_DEFINED)
    for token in settle(files.listed, vocab, [text for text in special if text in listed]):
        if replacing or token.id not in table.tokens:
            table.put(token.id, *_entry(token))
    known = {text: index for index, (text, _, _) in table.tokens.items()}
    for token in settle(files.added, vocab, ()):
        if token.id not in table.tokens and token.content not in known:
            table.put(token.id, *_entry(token))
            known[token.content] = token.id
    for text in special:
        _, score, kind = table.tokens.get(known.get(text, -1), ("", 0.0, TokenType.CONTROL))
        if kind in (TokenType.NORMAL, TokenType.USER_DEFINED):
            table.put(known[text], text, score, TokenType.CONTROL)


def _entry(token: AddedToken) -> tuple[str, float, TokenType]:
    """What the table of a SentencePiece vocabulary holds of an added token: text, score and type."""
    text, kind = added_kind(token.content, token.special)
    return text, ADDED_SCORE, kind
