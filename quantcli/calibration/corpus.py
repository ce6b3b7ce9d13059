"""The calibration data of the package: one long text, and conversations for a model's own chat template."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from quantcli.errors import MissingFile, QuantcliError
from quantcli.runner.text import BUNDLED, read_text

DIALOGUES = os.path.join(os.path.dirname(BUNDLED), "dialogues.jsonl")
# What an importance matrix reads when nobody names a text: more would cost time and hardly change sums of squares. The
# text begins with the same characters as ever, so that such matrices, and the files made with them, keep their bytes.
IMPORTANCE_CHARACTERS = 129_430

Message = Mapping[str, str]
Render = Callable[[Sequence[Message]], str | None]


class _Line(TypedDict):
    language: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Conversation:
    """``messages``: {"role", "content"} each, a system turn first or none, then user and assistant in turns.

    ``language`` is a two-letter code.
    """

    language: str
    messages: tuple[Message, ...]

    def plain(self) -> str:
        """The conversation as text of no model's format: one paragraph per turn, with the speaker's name in front."""
        return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in self.messages)

    def without_system(self) -> tuple[Message, ...]:
        """The same turns with the system's text in front of the first user's: some templates refuse the role."""
        first, *rest = self.messages
        if first["role"] != "system":
            return self.messages
        joined = {"role": "user", "content": f"{first['content']}\n\n{rest[0]['content']}"}
        return (joined, *rest[1:])


def bundled_text() -> str:
    """The path of the calibration text that comes with the package. Raises MissingFile."""
    return _existing(BUNDLED)


def bundled() -> str:
    """The calibration text itself: about 50 languages, code, mathematics, data, mixed section by section.

    Every prefix of some ten thousand tokens is mixed like the whole. Raises MissingFile.
    """
    return read_text(bundled_text())


def dialogues() -> list[Conversation]:
    """The conversations that come with the package, languages mixed. Raises MissingFile."""
    found = []
    with open(_existing(DIALOGUES), encoding="utf-8") as file:
        for text in file:
            line: _Line = json.loads(text)
            found.append(Conversation(line["language"], tuple(line["messages"])))
    return found


def rendered(render: Render | None = None) -> list[str]:
    """The conversations as texts, by ``render``, which applies a model's chat template to a list of messages.

    A conversation that it refuses (a QuantcliError, or None) is tried without its system turn and is plain text
    otherwise, as all of them are without ``render``. What it writes is for a tokenizer that reads special tokens.
    """
    return [text_of(conversation, render) for conversation in dialogues()]


def text_of(conversation: Conversation, render: Render | None) -> str:
    """One conversation, see `rendered`."""
    if render is not None:
        for messages in (conversation.messages, conversation.without_system()):
            try:
                text = render(messages)
            except QuantcliError:
                continue
            if text is not None:
                return text
    return conversation.plain()


def _existing(path: str) -> str:
    if not os.path.isfile(path):
        raise MissingFile("the bundled calibration text is not there", where=path, hint="give a text with -f")
    return path
