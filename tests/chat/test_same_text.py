"""The template in a GGUF file gives the text, or the refusal, that the checkpoint's own gives in transformers.

transformers is no dependency: `Own` reads the template and the special tokens of a checkpoint, and sets up Jinja, as
`apply_chat_template` of transformers 4.57 does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from helpers import oracles
from quantcli.cli import parse
from quantcli.commands import convert
from quantcli.errors import BadTokenizer
from quantcli.loader import open_model
from quantcli.runner import chat
from quantcli.vocab.tokenizer import Tokenizer

NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class Mark(Extension):
    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _support(self, context: Any, caller: Callable[[], str]) -> str:
        return caller()


class Own:
    """The template of a checkpoint folder, rendered as transformers does it."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.template = config.get("chat_template")
        if (folder / "chat_template.jinja").exists():
            self.template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        elif self.template is None and (folder / "chat_template.json").exists():
            self.template = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
        if isinstance(self.template, list):
            self.template = {entry["name"]: entry["template"] for entry in self.template}["default"]
        values = {f"{name}_token": config.get(f"{name}_token") for name in NAMES}
        texts = {key: value["content"] if isinstance(value, dict) else value for key, value in values.items()}
        self.special = {key: text for key, text in texts.items() if text}

    def render(self, variables: Mapping[str, Any]) -> str | None:
        """The text; None where the template refuses."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Mark, loopcontrols]
        )
        environment.filters["tojson"] = to_json
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            return environment.from_string(self.template).render(**variables, **self.special)
        except jinja2.TemplateError:
            return None


def to_json(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": " What's 1 < 2, Ünal? "}
ANSWER = {"role": "assistant", "content": "Yes.\n<think>so</think>No."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "<é>"}}}
RESULT = {"role": "tool", "content": "3"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <b>", "parameters": {"type": "object"}}}]
CONVERSATIONS: list[dict[str, Any]] = [
    {"messages": [USER]},
    {"messages": [SYSTEM, USER]},
    {"messages": [USER, ANSWER, {"role": "user", "content": ""}]},
    {"messages": [SYSTEM, USER, ANSWER], "add_generation_prompt": False},
    {"messages": [USER, USER]},
    {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT], "tools": TOOLS},
    {"messages": [USER], "documents": [{"title": "T", "text": "D"}]},
]  # fmt: skip


def differences(model: Path, own: Own) -> list[str]:
    """Conversations that the model at ``model`` puts otherwise than its checkpoint."""
    with open_model(model) as opened:
        tokenizer = Tokenizer.from_metadata(opened.metadata)
    assert tokenizer.chat_template == own.template

    def compare(variables: dict[str, Any]) -> str | None:
        expected = own.render({"tools": None, "documents": None, "add_generation_prompt": True, **variables})
        try:
            found: str | None = chat.render(tokenizer, **variables)
        except BadTokenizer:
            found = None
        return None if found == expected else f"{variables}: {found!r} instead of {expected!r}"

    with ThreadPoolExecutor(2) as pool:
        return [one for one in pool.map(compare, CONVERSATIONS) if one]


def has_template(folder: Path) -> bool:
    files = ("tokenizer_config.json", "chat_template.json", "chat_template.jinja")
    return (
        any("chat_template" in (folder / name).read_text("utf-8") for name in files if (folder / name).exists())
        or (folder / files[2]).exists()
    )


WITH_TEMPLATE = "gemma2 llama-k256 llama-tied-bias llama3 mistral-spm olmo3 qwen2 qwen3 smollm3 stablelm".split()


def test_the_list_of_oracles_is_whole() -> None:
    assert [name for name in oracles.names() if has_template(oracles.folder(name))] == WITH_TEMPLATE


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_oracles_give_the_text_of_their_checkpoint(name: str) -> None:
    folder = oracles.folder(name)
    assert not differences(folder, Own(folder))


REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ bos_token if loop.first }}[{{ m.content }}]{% endfor %}"
)
HARD = {
    "refusing": REFUSING,
    "tools": """{%- macro call(c) %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endmacro %}
{%- if tools is not none and tools is iterable %}
    {{- tools | map(attribute='function') | list | tojson(indent=2) }}
{%- endif %}
{%- for m in messages %}
    {%- if m.tool_calls is defined and m.tool_calls %}
        {%- for c in m.tool_calls %}{{ call(c) }}{% endfor %}
    {%- elif m.role == 'tool' %}<result>{{ m.content | string | trim }}</result>
    {% else %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}
""",
    "namespaces": """{% set ns = namespace(last=-1, system='') %}
{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}{% continue %}{% endif %}
{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{{ ns.system or 'none' }} {{ ns.last }}
{% for m in messages[::-1] %}{{ loop.revindex }}{% if m.role == 'assistant' %}{% break %}{% endif %}{% endfor %}""",
    "generation": """{% set x = 'out' %}{% for m in messages %}
  {%- if m.role == 'assistant' %}
    {%- generation %}{% set x = 'in' %}{{ m.content.split('</think>')[-1] }}{{ x }}{% endgeneration %}
  {%- else %}{{ m.content[:] | e | upper }}{{ x }}{% endif %}{% endfor %}""",
    "macros": """{% macro outer(n) %}
{% if n %}({{ outer(n - 1) }}){% endif %}{{ caller() if caller is defined }}{% endmacro %}
{% call outer(3) %}{{ messages | length }}{% endcall %}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}""",
    "odd-names": """{{ unk_token }}{{ pad_token is defined }}{{ documents }}{{ tools }}
{{ additional_special_tokens | default('no', true) }}""",
    "documents": """{% if documents %}{% for d in documents %}{{ d.title }}: {{ d.text }}
{% endfor %}{% endif %}{{ messages | tojson }}""",
    "date": "{{ strftime_now('%d %b %Y') }} {{ date_string | default('26 Jul') }}\r\n{{ messages[0]['content'] }}\r\n",
    "strings": r"""{{ 'a\n\'b\u00e9' }}{{ '%s-%d' | format('x', 3) }}
{{ ('a,b'.split(',') | last) ~ 1.0 ~ none ~ true }}{{ {'é': [1, none, true]} | tojson }}""",
    "undefined": "{{ messages[7].content }}",
    "failing": "{{ tool_list() }}",
    "broken": "{% for m in messages %}",
}  # fmt: skip
PLACES = ("config", "config-list", "jinja", "json", "jinja-over-config")


def placed(folder: Path, template: str, place: str) -> Path:
    """A checkpoint with this template, and with named ones where the place takes some."""
    shutil.copytree(oracles.folder("llama3"), folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    if place == "config":
        config["chat_template"] = template
    if place == "config-list":
        config["chat_template"] = [
            {"name": "tool_use", "template": "{{ 1 }}"},
            {"name": "default", "template": template},
        ]
    if place == "jinja-over-config":
        config["chat_template"] = "the one that transformers ignores"
    if place.startswith("jinja"):
        (folder / "chat_template.jinja").write_bytes(template.encode())
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ 2 }}")
    if place == "json":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", HARD)
def test_hard_templates_give_the_text_of_their_checkpoint(name: str, tmp_path: Path) -> None:
    place = PLACES[list(HARD).index(name) % len(PLACES)]
    folder = placed(tmp_path / "model", HARD[name], place)
    result = convert.run(parse.convert_request(source=folder, types=["COPY"], output=tmp_path / "model.gguf"))
    assert not differences(tmp_path / "model.gguf", Own(folder))
    assert bool(result["warnings"]) == (name == "broken")
    assert any("has another one" in note for note in result["notes"]) == (place == "jinja-over-config")


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_template_is_read(place: str, tmp_path: Path) -> None:
    folder = placed(tmp_path / "model", REFUSING, place)
    assert not differences(folder, Own(folder))
    named = {"config-list": "tool_use", "jinja": "rag", "jinja-over-config": "rag"}.get(place)
    with open_model(folder) as model:
        assert Tokenizer.from_metadata(model.metadata).named_templates == ([named] if named else [])
