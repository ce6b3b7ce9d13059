"""Vocabularies: a checkpoint's tokenizer files become the ``tokenizer.*`` entries of a GGUF file, and back again.

``load`` reads the files of a checkpoint (one module per kind of vocabulary); ``tokenizer.Tokenizer`` turns the
entries of any GGUF file into something that encodes and decodes text. Which kind a checkpoint has is read off its
files; what cannot be read off them (a family's fixed ids and habits) comes in as ``VocabHints``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantcli.vocab.hints import VocabHints

if TYPE_CHECKING:
    from quantcli.container import Value
    from quantcli.sources.checkpoint import Checkpoint


__all__ = ["VocabHints", "load"]


def load(
    checkpoint: Checkpoint,
    *,
    vocab_size: int | None,
    hints: VocabHints,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
) -> tuple[dict[str, Value], list[str]]:
    """The ``tokenizer.*`` metadata of a checkpoint in writing order, and notes for the user.

    ``vocab_size`` is the number of embedding rows (None: as many as the tokenizer names); missing ids become unused
    ``[PAD<id>]`` tokens. ``pre_tokenizer`` and ``chat_template`` (its text) are the user's own choice and go first.
    Raises BadTokenizer, MalformedFile, UnknownPreTokenizer, and UsageError for an unknown ``pre_tokenizer``.
    """
    from quantcli.vocab import assemble  # numpy and the tables only when they are needed

    return assemble.load(checkpoint, vocab_size, hints, pre_tokenizer, chat_template)
