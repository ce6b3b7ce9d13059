"""tokenizer.json with a byte-fallback BPE (SentencePiece in Hugging Face's clothes): a ``llama`` vocabulary.

llama.cpp merges by score, and the file has merge ranks. llama.cpp's own converter writes -1000 everywhere, which loses
the order; here a token's score is minus the rank of its first merge, so that llama.cpp merges in the same order.
"""

from __future__ import annotations

from quantcli.sources.jsonfile import object_in
from quantcli.vocab import added
from quantcli.vocab.token_table import ADDED_SCORE, Table, TokenType, added_kind, is_byte
from quantcli.vocab.tokenizer_files import TokenizerFiles, check_merges, flat_steps, merge_pairs, vocabulary

_WHERE = "tokenizer.json: model"
_VISIBLE = frozenset(  # Gemma 4's marks of channels, tool calls and quotes
    ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
)


def matches(files: TokenizerFiles) -> bool:
    """Is tokenizer.json of this kind?"""
    return (
        files.model.get("type", "BPE") == "BPE"
        and files.model.get("byte_fallback") is True
        and object_in(files.tokenizer, "decoder").get("type") in ("Sequence", "Metaspace")
    )


def load(size: int | None, files: TokenizerFiles) -> Table:
    """The table: scores from merge ranks, byte tokens, specials as control."""
    vocab = vocabulary(files.model, f"{_WHERE}.vocab")
    merges = merge_pairs(files.model, f"{_WHERE}.merges")
    check_merges(merges, vocab, f"{_WHERE}.merges")
    table = Table(size, "tokenizer.json")
    scores = _rank_scores(merges)
    never = -float(len(scores) + 1)
    for text, index in vocab.items():
        if is_byte(text):
            table.put(index, text, ADDED_SCORE, TokenType.BYTE)
        else:
            table.put(index, text, scores.get(text, never), TokenType.NORMAL)
    for token in added.settled(files, vocab):
        text, kind = added_kind(token.content, token.special)
        table.put(token.id, text, ADDED_SCORE, kind)
    return table


def load_with_merges(size: int | None, files: TokenizerFiles) -> tuple[Table, list[str]]:
    """The table without scores that say anything, and the merges as ``left right`` texts.

    Control tokens are those that the configuration names. Marks that a reader of the answer has to see are
    user-defined, whatever the files call them; so are added tokens that the vocabulary does not hold.
    """
    vocab = vocabulary(files.model, f"{_WHERE}.vocab")
    merges = merge_pairs(files.model, f"{_WHERE}.merges")
    check_merges(merges, vocab, f"{_WHERE}.merges")
    special = frozenset(added.named_special(files))
    table = Table(size, "tokenizer.json")
    for text, index in vocab.items():
        table.put(index, text, ADDED_SCORE, _kind(text, special, TokenType.NORMAL))
    for token in added.settled(files, vocab):
        if token.content not in vocab:
            table.put(token.id, token.content, ADDED_SCORE, _kind(token.content, special, TokenType.USER_DEFINED))
    return table, [f"{left} {right}" for left, right in merges]


def _kind(text: str, special: frozenset[str], otherwise: TokenType) -> TokenType:
    """The type of a token by its text."""
    if text in _VISIBLE:
        return TokenType.USER_DEFINED
    if is_byte(text):
        return TokenType.BYTE
    return TokenType.CONTROL if text in special else otherwise


def _rank_scores(merges: list[tuple[str, str]]) -> dict[str, float]:
    """Merged text -> score: 0, -1, -2, ... in the order in which the texts first appear as a result."""
    scores: dict[str, float] = {}
    for left, right in merges:
        scores.setdefault(left + right, -float(len(scores)))
    return scores


def space_prefix(files: TokenizerFiles) -> bool:
    """Does the tokenizer put a blank in front of the text (normalizer Prepend, or Metaspace "always"/"first")?"""
    steps = flat_steps(files.tokenizer, "normalizer", "normalizers")
    steps += flat_steps(files.tokenizer, "pre_tokenizer", "pretokenizers")
    for step in steps:
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            return step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never") != "never"
    return False
