"""Where config.json of a wrapper keeps the settings of its language model."""

from __future__ import annotations

from collections.abc import Mapping

_TEXT_PARTS = (
    ("text_config",), ("llm_config",), ("lm_config",), ("language_config",), ("thinker_config", "text_config"),
)  # fmt: skip


def text_part(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of a wrapper's config.json that describes its language model; {} where there is none."""
    for path in _TEXT_PARTS:
        part: object = config
        for name in path:
            part = part.get(name) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and part:
            return part
    return {}
