"""What the name of a model tells: a title, and its parts in the usual form Base-Name-7B-Instruct-v0.1."""

from __future__ import annotations

import re

HUB = "https://huggingface.co/"  # what the address of a repository begins with
_SIZE = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[kmbt]", re.IGNORECASE)
_VERSION = re.compile(r"v\d+(?:\.\d+)*", re.IGNORECASE)


def title(name: str) -> str:
    """A folder's name as a title: "llama-k256" -> "Llama K256"; versions and mixed case stay as they are."""
    words = name.strip().replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not re.match(r"v\d|\d", word) else word for word in words)


def name_parts(name: str) -> dict[str, str]:
    """What a name in the usual form Base-Name-7B-Instruct-v0.1 tells: basename, finetune, version."""
    words = name.split("-")
    sizes = [i for i, word in enumerate(words) if i and _SIZE.fullmatch(word)]
    versions = [word for word in words[1:] if _VERSION.fullmatch(word)]
    found = {"general.version": versions[-1]} if versions else {}
    if sizes:
        rest = [word for word in words[sizes[0] + 1 :] if not _VERSION.fullmatch(word) and not _SIZE.fullmatch(word)]
        found["general.basename"] = "-".join(word for word in words[: sizes[0]] if not _VERSION.fullmatch(word))
        found["general.finetune"] = "-".join(rest)
    return found
