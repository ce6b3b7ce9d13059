"""Does a conversation look the same from the checkpoint's chat template and from the GGUF file's?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantcli.chat import sandbox
from quantcli.errors import BadTokenizer, MissingPackage
from quantcli.report.results import CheckStep
from quantcli.runner import chat
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab import templates, tokenizer_files
from quantcli.vocab.references import Reference
from quantcli.vocab.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, str]]

_USER = {"role": "user", "content": "What is the capital of France?"}
_ASSISTANT = {"role": "assistant", "content": "Paris."}
_AGAIN = {"role": "user", "content": "  And of Spain?\nOne word. "}
_SYSTEM = {"role": "system", "content": "You are terse."}
#: name -> messages, and whether the prompt for an answer follows
CONVERSATIONS: Mapping[str, tuple[Messages, bool]] = {
    "one question": ([_USER], True),
    "with a system message": ([_SYSTEM, _USER], True),
    "two questions": ([_USER, _ASSISTANT, _AGAIN], True),
    "without a prompt for the answer": ([_SYSTEM, _USER, _ASSISTANT], False),
}
_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # tokens that templates know by name
_SHOWN, _SHOWN_BEGINNING = 160, 40


def steps(tokenizer: Tokenizer, checkpoint: Checkpoint, found: Sequence[Reference]) -> list[CheckStep]:
    """One step for the checkpoint's own template, one for transformers where it is installed."""
    files = tokenizer_files.read(checkpoint)
    own = templates.find(checkpoint, files, None)[0].get("default")
    if own is None:
        if tokenizer.chat_template is None:
            return [_step("skipped", "there is no chat template")]
        return [_step("note", f"the checkpoint has none, the GGUF file has {_beginning(tokenizer.chat_template)}")]
    if tokenizer.chat_template is None:
        return [_step("differs", "the GGUF file has no chat template, the checkpoint has one")]
    variables = {f"{kind}_token": text for kind in _KINDS if (text := files.token_content(kind)) is not None}
    try:
        return [_compare(tokenizer, own, variables), *_by_transformers(tokenizer, found)]
    except MissingPackage as error:
        return [_step("skipped", error.message)]


def _step(verdict: str, summary: str, details: Sequence[str] = (), name: str = "chat template") -> CheckStep:
    return {"name": name, "verdict": verdict, "summary": summary, "details": list(details)}


def _beginning(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_BEGINNING else text[: _SHOWN_BEGINNING - 3] + "...")


def _compare(tokenizer: Tokenizer, own: str, variables: Mapping[str, str]) -> CheckStep:
    """The same conversations through both templates, each with the special tokens that it finds on its side."""
    details: list[str] = []
    refused = 0
    named = [name for name in (f"{kind}_token" for kind in _KINDS) if name in own]
    same = own == tokenizer.chat_template and all(variables.get(n) == tokenizer.special_texts.get(n) for n in named)
    for name, (messages, prompt) in CONVERSATIONS.items():
        ours = _ours(tokenizer, messages, prompt)
        given = {**variables, "messages": list(messages), "add_generation_prompt": prompt}
        theirs = ours if same else _rendered(own, given)
        refused += isinstance(ours, BadTokenizer) and isinstance(theirs, BadTokenizer)
        if _text(ours) != _text(theirs):
            details.append(_difference(name, _text(ours), _text(theirs)))
    if details:
        return _step("differs", f"{len(details)} of {len(CONVERSATIONS)} conversations look otherwise", details)
    alike = f"{len(CONVERSATIONS)} conversations look the same"
    return _step("ok", alike + (f" ({refused} are refused by the template)" if refused else ""))


def _by_transformers(tokenizer: Tokenizer, found: Sequence[Reference]) -> list[CheckStep]:
    """The same against transformers' own rendering."""
    render = next((reference.render for reference in found if reference.render), None)
    if render is None:
        return []
    details: list[str] = []
    for name, (messages, prompt) in CONVERSATIONS.items():
        ours = _ours(tokenizer, messages, prompt)
        try:
            theirs = render(messages, prompt)
        except Exception:  # a template that refuses the conversation, in whatever way that program says it
            theirs = ""
        if not isinstance(ours, BadTokenizer) and ours != theirs:
            details.append(_difference(name, ours, theirs))
    name = "chat template by transformers"
    if details:
        return [_step("differs", f"{len(details)} of {len(CONVERSATIONS)} conversations look otherwise", details, name)]
    return [_step("ok", f"{len(CONVERSATIONS)} conversations look the same", name=name)]


def _ours(tokenizer: Tokenizer, messages: Messages, prompt: bool) -> str | BadTokenizer:
    try:
        return chat.render(tokenizer, messages, add_generation_prompt=prompt)
    except BadTokenizer as error:
        return error


def _rendered(template: str, variables: Mapping[str, object]) -> str | BadTokenizer:
    try:
        return sandbox.render(template, {"tools": None, "documents": None, **variables})
    except BadTokenizer as error:
        return error


def _text(rendered: str | BadTokenizer) -> str:
    return rendered.message if isinstance(rendered, BadTokenizer) else rendered


def _difference(name: str, ours: str, theirs: str) -> str:
    """Both texts from a little before the place where they part."""
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    start = max(0, place - 20)
    return f"{name}: {ours[start : start + _SHOWN]!r} in the GGUF file, {theirs[start : start + _SHOWN]!r} there"
