"""What a model family has to say about its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
