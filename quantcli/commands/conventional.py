"""The GGUF naming convention: BaseName-SizeLabel-FineTune-Version-Encoding, from metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping

from quantcli.container import Value

_PARTS = ("general.basename", "general.size_label", "general.finetune", "general.version")
_VERSION = re.compile(r"v?\d+(?:\.\d+)*")


def conventional(metadata: Mapping[str, Value], fallback: str) -> str:
    """The name without its encoding: "Mixtral-8x7B-Instruct-v0.1". ``fallback`` stands for a missing base name.

    The convention demands a version; where metadata have none it is v1.0. Blanks and separators of parts are dashes.
    """
    texts = [_text(metadata, key) for key in _PARTS]
    base, size, finetune, version = (_part(text) for text in texts)
    base = base or _part(fallback)
    if version and not version.startswith("v") and _VERSION.fullmatch(version):
        version = f"v{version}"
    return "-".join(filter(None, (base, size, finetune, version or "v1.0")))


def _text(metadata: Mapping[str, Value], key: str) -> str:
    value = metadata.get(key)
    return value.data if value is not None and isinstance(value.data, str) else ""


def _part(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in "._+-" else "-" for c in text.strip())
    return re.sub("-{2,}", "-", kept).strip("-.")[:60]
