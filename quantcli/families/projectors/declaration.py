"""What a projector's declaration says beyond a family's."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.families.declaration import Family
from quantcli.vocab import VocabHints

ARCHITECTURE = "clip"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """The embedding of ``token`` in the language model, which the projector's file has as the vector ``target``."""

    token: str
    target: str


@dataclass(frozen=True, slots=True)
class Projector(Family):
    """The tower of one class of wrappers, and what leads from it into the language model.

    Its facts are read from a config.json with three more parts: ``tower`` (the tower's settings, which lie under
    ``settings`` in the wrapper's), ``text`` (the language model's laid over the wrapper's) and ``processor`` (what
    preprocessor_config.json and processor_config.json say, the latter laid over the former). ``parts`` are beginnings
    of the names of its tensors, below what wrappers put before them; every other tensor is passed over, but
    for the one ``row`` of the language model's embedding.
    """

    settings: str = "vision_config"
    parts: tuple[str, ...] = ()
    row: TokenRow | None = None


VOCAB = VocabHints(ARCHITECTURE)  # a projector's file has no vocabulary
