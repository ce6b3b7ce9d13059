"""Byte-level BPE over a GGUF vocabulary, run by the ``tokenizers`` package with the expressions of pretokenizers.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from quantcli.errors import BadTokenizer, UnsupportedFile
from quantcli.vocab import pretokenizers

if TYPE_CHECKING:
    import tokenizers


def build(ids: Mapping[str, int], merges: Iterable[str], pre: str) -> tokenizers.Tokenizer:
    """A tokenizers.Tokenizer for the vocabulary ``ids`` (text -> id), ``left right`` merges and a pre-tokenizer name.

    Merges that name unknown tokens are passed over: no text can reach them. Raises UnsupportedFile for names whose
    expressions are not known.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers

    regexes = pretokenizers.REGEXES.get(pre)
    if not regexes:
        raise UnsupportedFile(
            f"the pre-tokenizer {pre[:60]!r} " + ("is not known" if regexes is None else "cannot be run here"),
            where="tokenizer.ggml.pre",
            hint="text can be tokenized with: " + " ".join(n for n, r in pretokenizers.REGEXES.items() if r),
        )
    pairs = [pair for text in merges if (pair := _split_merge(text, ids)) is not None]
    model = models.BPE(vocab=dict(ids), merges=pairs, ignore_merges=pre in pretokenizers.IGNORE_MERGES)
    result = tokenizers.Tokenizer(model)
    splits = [pre_tokenizers.Split(tokenizers.Regex(regex), "isolated") for regex in regexes]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    return result


def _split_merge(text: str, ids: Mapping[str, int]) -> tuple[str, str] | None:
    """Both sides of a merge, if they and their result are tokens. The blank that parts them is never the first."""
    cut = text.find(" ", 1)
    if cut < 0:
        raise BadTokenizer(f"{text[:60]!r} is no merge of two parts", where="tokenizer.ggml.merges")
    left, right = text[:cut], text[cut + 1 :]
    return (left, right) if left in ids and right in ids and left + right in ids else None
