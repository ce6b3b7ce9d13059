"""Chat templates: tokenizer_config.json, chat_template.jinja with its companions, chat_template.json, or the user's."""

from __future__ import annotations

import codecs

from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import text_in
from quantcli.vocab import origin
from quantcli.vocab.token_table import check_unicode
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles, json_object

_JINJA, _JSON = "chat_template.jinja", "chat_template.json"
_MAX_CHARACTERS = 4 << 20


def find(checkpoint: Folder, files: TokenizerFiles, override: str | None) -> tuple[dict[str, str], list[str]]:
    """(template name -> text, notes); "default" is the one without a name. Later names replace earlier ones.

    Of several sources the one that transformers takes: files of their own, then tokenizer_config.json, then
    chat_template.json (the processor's).
    """
    if override is not None:
        return _checked({"default": override}), []
    own = _from_files(checkpoint)
    listed = _read(files.config.get("chat_template"), "tokenizer_config.json: chat_template")
    found = own or listed or _read(json_object(checkpoint, _JSON).get("chat_template"), _JSON)
    notes = [f"the chat template is that of {_JINJA}; tokenizer_config.json has another one"]
    return found, notes if own and listed and own != listed else []


def _read(value: object, where: str) -> dict[str, str]:
    """A template in JSON: a text, or a list of named ones."""
    if value is None:
        return {}
    if isinstance(value, str):
        return _checked({"default": value})
    if isinstance(value, list):
        return _checked(dict(_choice(entry, f"{where}[{index}]") for index, entry in enumerate(value)))
    raise BadTokenizer("a chat template is a text or a list of named ones", where=where)


def _from_files(checkpoint: Folder) -> dict[str, str]:
    """chat_template.jinja and ``additional_chat_templates/NAME.jinja``; {} where the first is missing."""
    default = _file(checkpoint, _JINJA)
    if default is None:
        return {}
    prefix, suffix = origin.TEMPLATES.split("*")
    names = sorted(path.name for path in checkpoint.folder.glob(origin.TEMPLATES))
    found = {name.removesuffix(suffix): _file(checkpoint, prefix + name) for name in names}
    return _checked({"default": default, **{_key_name(n): text for n, text in found.items() if text is not None}})


def _file(checkpoint: Folder, name: str) -> str | None:
    """A file as Python opens texts: line ends become \\n, a byte order mark is a character."""
    text = checkpoint.text(name)
    if text is None:
        return None
    marked = (checkpoint.bytes(name) or b"").startswith(codecs.BOM_UTF8)
    return "\ufeff" * marked + text.replace("\r\n", "\n").replace("\r", "\n")


def _choice(entry: object, where: str) -> tuple[str, str]:
    """One ``{"name": ..., "template": ...}``."""
    name, template = text_in(entry, "name"), text_in(entry, "template")
    if name and template is not None:
        return _key_name(name), template
    raise BadTokenizer("a named chat template has a name and a template", where=where)


def _key_name(name: str) -> str:
    """The name as part of a GGUF key: characters outside [A-Za-z0-9] become _."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _checked(templates: dict[str, str]) -> dict[str, str]:
    for name, text in templates.items():
        if len(text) > _MAX_CHARACTERS:
            raise BadTokenizer(f"the chat template {name} has {len(text):,} characters", where="chat_template")
        check_unicode(text, f"the chat template {name}", "chat_template")
    return templates
