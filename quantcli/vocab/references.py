"""Other programs that read a checkpoint's tokenizer: what our ids are held against by `quantcli check`.

``tokenizers`` (tokenizer.json) and ``sentencepiece`` (its own files) are always there; ``transformers`` where a user
has it. None of them runs code from the checkpoint.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantcli.vocab import sentencepiece as models

Render = Callable[[Sequence[Mapping[str, str]], bool], str]


@dataclass(frozen=True, slots=True)
class Reference:
    """One reader of a tokenizer. ``encode(text, add_special)`` gives ids.

    ``parses_special``: it finds special tokens in texts. ``adds_special``: it knows what goes around a text.
    ``render(messages, add_generation_prompt)`` is its chat template, if it has one.
    """

    name: str
    encode: Callable[[str, bool], list[int]]
    parses_special: bool = True
    adds_special: bool = True
    render: Render | None = None


def find(folder: Path) -> tuple[list[Reference], list[str]]:
    """The readers of the tokenizer in ``folder``, and remarks on those that refuse it."""
    found: list[Reference] = []
    remarks: list[str] = []
    for name, make in _READERS:
        try:
            reference = make(folder)
        except Exception as error:  # another program's reader may fail in any way
            remarks.append(f"{name} cannot read it: {str(error).splitlines()[0][:200] if str(error) else error!r}")
        else:
            found += [reference] if reference else []
    return found, remarks


def _tokenizers(folder: Path) -> Reference | None:
    """Hugging Face's library on tokenizer.json."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str, add_special: bool) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=add_special).ids)

    return Reference("tokenizers", encode)


def _sentencepiece(folder: Path) -> Reference | None:
    """The SentencePiece package, where there is no tokenizer.json that would say more."""
    path = folder / "tokenizer.model"
    if (folder / "tokenizer.json").is_file() or not path.is_file() or models.is_text_ranks(path.read_bytes()):
        return None
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return Reference("sentencepiece", lambda text, _: list(processor.encode(text)), False, False)


def _transformers(folder: Path) -> Reference | None:
    """transformers, if it is installed: it follows tokenizer_config.json as well."""
    if importlib.util.find_spec("transformers") is None:
        return None
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it says on import what else could be installed
    transformers = importlib.import_module("transformers")  # never a dependency
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    def encode(text: str, add_special: bool) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=add_special))

    def render(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        plain = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=add_generation_prompt))

    return Reference("transformers", encode, render=render if tokenizer.chat_template else None)


_READERS: tuple[tuple[str, Callable[[Path], Reference | None]], ...] = (
    ("tokenizers", _tokenizers),
    ("sentencepiece", _sentencepiece),
    ("transformers", _transformers),
)
