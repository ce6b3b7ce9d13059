"""Chat templates: tokenizer_config.json, chat_template.jinja with its companions, chat_template.json, or the user's."""

from __future__ import annotations

from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import text_in
from quantcli.vocab.token_table import check_unicode
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles, json_object

_MAX_CHARACTERS = 4 << 20


def find(checkpoint: Folder, files: TokenizerFiles, override: str | None) -> dict[str, str]:
    """Template name -> text; "default" is the one without a name. Later names replace earlier ones."""
    if override is not None:
        return _checked({"default": override})
    value, where = files.config.get("chat_template"), "tokenizer_config.json: chat_template"
    if value is None:
        jinja = checkpoint.text("chat_template.jinja")
        if jinja is not None:
            return _checked({"default": jinja, **_additional(checkpoint)})
        value, where = json_object(checkpoint, "chat_template.json").get("chat_template"), "chat_template.json"
    if value is None:
        return {}
    if isinstance(value, str):
        return _checked({"default": value})
    if isinstance(value, list):
        return _checked(dict(_choice(entry, f"{where}[{index}]") for index, entry in enumerate(value)))
    raise BadTokenizer("a chat template is a text or a list of named ones", where=where)


def _additional(checkpoint: Folder) -> dict[str, str]:
    """``additional_chat_templates/NAME.jinja``."""
    prefix, suffix = "additional_chat_templates/", ".jinja"
    names = sorted(path.name for path in checkpoint.folder.glob(f"{prefix}*{suffix}"))
    found = {name.removesuffix(suffix): checkpoint.text(prefix + name) for name in names}
    return {_key_name(name): text for name, text in found.items() if text is not None}


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
