"""BPE by ranks over a GGUF vocabulary, run by the ``tokenizers`` package: over bytes, or over plain text.

Over bytes the expressions of pretokenizers.py cut the words. Over plain text (Gemma 4 and its like) blanks are U+2581,
nothing but line feeds cuts, and a character without a token becomes byte tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from quantcli.errors import BadTokenizer, UnsupportedFile
from quantcli.vocab import pretokenizers

if TYPE_CHECKING:
    import tokenizers


_LINES = re.compile(r"[^\n]+|\n+")
_BLANK = "\u2581"


def runner(ids: Mapping[str, int], merges: Iterable[str], pre: str) -> Callable[[str], list[int]]:
    """What gives the ids of a text, for the vocabulary ``ids`` (text -> id), ``left right`` merges and a name.

    Merges that name unknown tokens are passed over: no text can reach them. Raises UnsupportedFile for names whose
    expressions are not known.
    """
    if pre in pretokenizers.PLAIN_TEXT:
        return _plain_text(ids, merges)
    model = build(ids, merges, pre)
    return lambda text: model.encode(text, add_special_tokens=False).ids


def _plain_text(ids: Mapping[str, int], merges: Iterable[str]) -> Callable[[str], list[int]]:
    """The same over plain text. A run of line feeds that is a token is taken whole, as llama.cpp does."""
    import tokenizers
    from tokenizers import models

    model = tokenizers.Tokenizer(models.BPE(vocab=dict(ids), merges=_pairs(merges, ids), byte_fallback=True))

    def encode(text: str) -> list[int]:
        result: list[int] = []
        for line in _LINES.findall(text.replace(" ", _BLANK)):
            whole = ids.get(line) if line[0] == "\n" else None
            result += model.encode(line, add_special_tokens=False).ids if whole is None else [whole]
        return result

    return encode


def build(ids: Mapping[str, int], merges: Iterable[str], pre: str) -> tokenizers.Tokenizer:
    """A tokenizers.Tokenizer over bytes."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    regexes = pretokenizers.REGEXES.get(pre)
    if not regexes:
        raise UnsupportedFile(
            f"the pre-tokenizer {pre[:60]!r} " + ("is not known" if regexes is None else "cannot be run here"),
            where="tokenizer.ggml.pre",
            hint="text can be tokenized with: " + " ".join(n for n, r in pretokenizers.REGEXES.items() if r),
        )
    model = models.BPE(vocab=dict(ids), merges=_pairs(merges, ids), ignore_merges=pre in pretokenizers.IGNORE_MERGES)
    result = tokenizers.Tokenizer(model)
    splits = [pre_tokenizers.Split(tokenizers.Regex(regex), "isolated") for regex in regexes]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    return result


def _pairs(merges: Iterable[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    return [pair for text in merges if (pair := _split_merge(text, ids)) is not None]


def _split_merge(text: str, ids: Mapping[str, int]) -> tuple[str, str] | None:
    """Both sides of a merge, if they and their result are tokens. The blank that parts them is never the first."""
    cut = text.find(" ", 1)
    if cut < 0:
        raise BadTokenizer(f"{text[:60]!r} is no merge of two parts", where="tokenizer.ggml.merges")
    left, right = text[:cut], text[cut + 1 :]
    return (left, right) if left in ids and right in ids and left + right in ids else None
