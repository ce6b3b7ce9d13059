"""Chat templates: what a conversation looks like as text.

A template is a Jinja program from the model's file. Jinja is not small and templates use much of it, so it is not
rewritten here: the jinja2 package is an optional dependency, and its sandbox runs the template.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from quantcli.errors import BadTokenizer, MissingPackage, UsageError
from quantcli.vocab.tokenizer import Tokenizer

LONGEST = 4 << 20  # characters that a template may produce


class _Refused(Exception):
    """The template itself said no (raise_exception)."""


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> str:
    """The conversation ``messages`` ({"role", "content"} each) as the model wants it, up to where its answer begins.

    Raises UsageError (the model has no template), MissingPackage, BadTokenizer (the template fails).
    """
    template = tokenizer.chat_template
    if not template:
        raise UsageError(
            "the model has no chat template", where="--chat", hint="leave out --chat to continue a plain text"
        )
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingPackage(
            "chat templates need the jinja2 package", where="--chat", hint="pip install jinja2 (or quantcli[chat])"
        ) from error

    def refuse(message: str) -> None:
        raise _Refused(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=refuse, strftime_now=lambda f: datetime.datetime.now().strftime(f))
    try:
        text: str = environment.from_string(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            bos_token=_text(tokenizer, tokenizer.bos),
            eos_token=_text(tokenizer, tokenizer.eos),
        )
    except (_Refused, TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise BadTokenizer(f"the chat template fails: {error}", where="tokenizer.chat_template") from error
    return text[:LONGEST]


def _to_json(value: object, indent: int | None = None) -> str:
    """As transformers does it: plain JSON, not escaped for HTML."""
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def _text(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.texts[token]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a rendered conversation: its special tokens are read as such, and bos is not doubled."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return ids
