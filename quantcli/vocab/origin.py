"""What the vocabulary of a checkpoint is made of, as one hash, which is known without reading it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantcli.errors import QuantcliError

if TYPE_CHECKING:
    from quantcli.sources.checkpoint import Checkpoint

#: files that a vocabulary is made of, beside those that a `Checkpoint` knows by name
TEMPLATES, RANKS = "additional_chat_templates/*.jinja", "*.tiktoken"


def digest(checkpoint: Checkpoint, digests: Mapping[str, str], words: Sequence[str | None]) -> str:
    """sha256 of all that decides what ``vocab.load`` gives.

    ``digests``: of the checkpoint's small files, config.json among them; ``words``: the user's own.
    """
    found = sorted(path for pattern in (TEMPLATES, RANKS) for path in checkpoint.folder.glob(pattern))
    further = [_further(checkpoint, path.relative_to(checkpoint.folder).as_posix()) for path in found]
    return hashlib.sha256(json.dumps([sorted(digests.items()), further, list(words)]).encode()).hexdigest()


def _further(checkpoint: Checkpoint, name: str) -> tuple[str, str | None]:
    """A file's name and sha256; without one what cannot be read, which ``vocab.load`` says where it needs it."""
    try:
        return name, checkpoint.digests((name,)).get(name)
    except QuantcliError:
        return name, None
