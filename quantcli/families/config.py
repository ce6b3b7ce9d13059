"""config.json as a mapping that remembers which of its keys were asked for: what nobody reads is told (`unread.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

Other = TypeVar("Other")


class Config(dict[str, object]):
    """Settings below ``prefix``; ``asked`` holds the dotted names of all that were looked up, at any depth."""

    def __init__(self, settings: Mapping[str, object], asked: set[str] | None = None, prefix: str = "") -> None:
        self.asked: set[str] = set() if asked is None else asked
        self.prefix = prefix
        super().__init__(
            (key, Config(value, self.asked, f"{prefix}{key}.") if isinstance(value, Mapping) else value)
            for key, value in settings.items()
        )

    def __getitem__(self, key: str) -> object:
        self.asked.add(self.prefix + key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(f"{self.prefix}{key}")
        return super().__contains__(key)

    def get(self, key: str, default: object = None) -> object:
        self.asked.add(self.prefix + key)
        return super().get(key, default)

    def unread(self) -> Iterator[tuple[str, object]]:
        """Dotted names and values of the settings that nobody asked for; those below an unread one are left out."""
        for key, value in self.items():
            name = self.prefix + key
            if name not in self.asked:
                yield name, value
            elif isinstance(value, Config):
                yield from value.unread()
