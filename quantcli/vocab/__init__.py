"""Vocabularies: a checkpoint's tokenizer files become the ``tokenizer.*`` entries of a GGUF file, and back again.

``load`` reads the files of a checkpoint (one module per kind of vocabulary); ``tokenizer.Tokenizer`` turns the
entries of any GGUF file into something that encodes and decodes text. Which kind a checkpoint has is read off its
files; what cannot be read off them (a family's fixed ids and habits) comes in as ``VocabHints``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantcli.container import Value
    from quantcli.sources.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class VocabHints:
    """What a model family knows about its vocabulary and the files do not say.

    ``architecture`` is the GGUF architecture name: it decides where several pre-tokenizer names share one structure.
    ``kind`` forces a kind of vocabulary ("llama", "gpt2", "t5", "bert"); None reads it off the files.
    ``prefix_from_config`` (llama class) writes ``add_space_prefix`` when tokenizer_config.json has
    ``add_prefix_space``; ``space_prefix`` writes it with a fixed value (gemma: False).
    ``ids`` are token ids that are always written, by kind ("eot": 107, "fim_pre": 32007, "unknown": 1, ...); ``texts``
    are the same by token text, written where the vocabulary has that token ("eot": "<|user|>"). Both replace what the
    files say. ``add_bos`` and ``add_eos`` replace what the files say when not None.
    """

    architecture: str
    kind: str | None = None
    prefix_from_config: bool = False
    space_prefix: bool | None = None
    ids: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    add_bos: bool | None = None
    add_eos: bool | None = None


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
