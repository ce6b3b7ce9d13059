"""Chat templates: what a conversation looks like as text, and as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantcli.chat import sandbox
from quantcli.errors import UsageError
from quantcli.vocab.tokenizer import Tokenizer


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] | None = None,
    documents: Sequence[Mapping[str, object]] | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """The conversation ``messages`` ({"role", "content"} each) as the model wants it, up to where its answer begins.

    The variables are those of transformers' `apply_chat_template`. Raises UsageError (the model has no template),
    MissingPackage, BadTokenizer (the template fails, refuses the conversation, or takes too much).
    """
    template = tokenizer.chat_template
    if not template:
        named = f"no default chat template, only {', '.join(tokenizer.named_templates)}"
        raise UsageError(
            f"the model has {named[:200] if tokenizer.named_templates else 'no chat template'}",
            where="--chat",
            hint="leave out --chat to continue a plain text",
        )
    variables: dict[str, object] = {
        "messages": [dict(message) for message in messages],
        "tools": tools,
        "documents": documents,
        "add_generation_prompt": add_generation_prompt,
        **tokenizer.special_texts,
    }
    return sandbox.render(template, variables)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a rendered conversation: its special tokens are read as such, and bos is not doubled."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    if tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return ids
