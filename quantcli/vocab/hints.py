"""What a model family has to say about its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class VocabHints:
    """What a model family knows about its vocabulary and the files do not say.

    ``architecture`` is the GGUF architecture name: it decides where several pre-tokenizer names share one structure.
    ``pre`` are names that this family prefers there; the first one that has the tokenizer's structure is written.
    ``kind`` forces a kind of vocabulary (a key of ``kinds.READERS``); None reads it off the files.
    ``prefix_from_config`` (llama class) writes ``add_space_prefix`` when tokenizer_config.json has
    ``add_prefix_space``; ``space_prefix`` writes it with a fixed value (gemma: False), or ("stated") as the
    SentencePiece model has it. ``unused`` begins the texts of pieces that no text uses.
    ``ids`` are token ids that are always written, by kind ("eot": 107, "fim_pre": 32007, "unknown": 1, ...); ``texts``
    are the same by token text, written where the vocabulary has that token ("eos": "<|im_end|>"). Both replace what the
    files say; ``fallbacks`` are texts for kinds of which the files name no token. ``add_bos`` and ``add_eos`` replace
    what the files say when not None.
    """

    architecture: str
    pre: tuple[str, ...] = ()
    kind: str | None = None
    prefix_from_config: bool = False
    space_prefix: bool | Literal["stated"] | None = None
    unused: str | None = None
    ids: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    add_bos: bool | None = None
    add_eos: bool | None = None
