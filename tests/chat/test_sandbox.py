"""Chat templates as programs of strangers: what transformers' environment offers, and what no template may do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from quantcli import system
from quantcli.chat import interpreter, sandbox
from quantcli.errors import BadTokenizer

MESSAGES = [{"role": "user", "content": "Hé <b>"}, {"role": "assistant", "content": "x"}]
IN_TIME = 3.0  # seconds until every attack is over, beyond what a template of one letter takes on this machine now


def render(template: str, **variables: object) -> str:
    return sandbox.render(template, {"messages": MESSAGES, **variables})


@pytest.mark.parametrize(
    "template, text",
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "Hé <b>"}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=True) }}", '{\n "a": [\n  2\n ],\n "b": 1\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% for m in messages %}{% if m.role != 'user' %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}", "assistant"),
        ("{% for m in messages %}{% generation %}{{ m.role }};{% endgeneration %}{% endfor %}", "user;assistant;"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),  # a call block
        ("{%- generation -%} a {%- endgeneration -%} b", "ab"),
        ("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),  # lstrip_blocks, trim_blocks, last line end
        ("{{ missing }}{{ missing is defined }}{{ tools is none }}", "FalseTrue"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m('<') }}", "<<>"),  # nothing is escaped
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{{ messages[0].content[:] }}{{ messages[::-1][0]['role'] }}", "Hé <b>assistant"),
        ("{{ strftime_now('%Y') | length }}{{ '\\u00e9\U0001f600' }}", "4é\U0001f600"),
        ("{{ messages.append(1) }}", None),  # the immutable sandbox
        ("", ""),
    ],
)
def test_what_templates_can_use(template: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(BadTokenizer, match="unsafe"):
            render(template)
    else:
        assert render(template, tools=None) == text


@pytest.mark.parametrize(
    "template, message",
    [
        ("a\nb\n{{ raise_exception('no system role') }}", "refuses the conversation in line 3: no system role"),
        ("{{ raise_exception(5) }}", "refuses the conversation in line 1: 5"),
        ("\n\n{{ unknown() }}", "fails in line 3: 'unknown' is undefined"),
        ("\n{% for %}", "fails in line 2: Expected an expression"),
        ("{{ 1 | nope }}", "fails in line 1: No filter named 'nope'"),
        ("{% nope %}", "fails in line 1: Encountered unknown tag 'nope'"),
        ("\n{{ messages[0].content + 1 }}", "fails in line 2: can only concatenate str"),
        ("{% macro m() %}\n{{ 1 / 0 }}{% endmacro %}\n\n{{ m() }}", "fails in line 2: division by zero"),
        ("{{ [][0].a }}", "fails in line 1: list object has no element 0"),
        ("{% break %}", "fails"),
        ("{% include 'x' %}", "fails in line 1: no loader"),
        ("{{ '\\ud800' }}", "half of a surrogate pair"),
        ("{{ raise_exception('x' * 5000) }}", "refuses the conversation in line 1: x+$"),
        ("{{ raise_exception('a\\n\\nb') }}", "in line 1: a b$"),
    ],
)
def test_what_is_wrong_and_where(template: str, message: str) -> None:
    with pytest.raises(BadTokenizer, match=message) as caught:
        render(template)
    assert len(str(caught.value)) < 400 and caught.value.where == sandbox.KEY and caught.value.hint


ATTACKS = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "doubling-lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "joining": "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "two-fold-recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "recursive-loop": "{% set l = [1] %}{% for i in l recursive %}{{ loop(l) }}{% endfor %}",
    "repeated-text": "{{ 'x' * 10**11 }}",
    "repeated-list": "{{ [0] * 10**10 }}",
    "power": "{{ 7 ** (10**9) }}",
    "padding": "{{ 'x'.ljust(10**10) }}",
    "formatting": "{{ '%1000000000d' % 1 }}",
    "format-method": "{{ '{:1000000000}'.format(1) }}",
    "replacing": "{{ ('a' * 9999).replace('', 'b' * 999999) }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "slices": "{{ [1] | batch(10**9, 'x') | list }}",
    "output": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "subclasses": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "attr": "{{ (messages | attr('__class__')).__mro__ }}",
    "format-escape": "{{ '{0.__class__.__mro__}'.format(messages) ~ raise_exception.__globals__['os'] }}",
    "function": "{{ strftime_now.__globals__['sys'].exit() }}",
    "source": "x{{ 1 }}" * 131_000,
    "longer-source": "x" * (2 << 20),
    "nested-source": "{% if 1 %}" * 30_000,
    "brackets": "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
    "sum": "{{ 1" + "+1" * 60_000 + " }}",
    "attributes": "{{ a" + ".b" * 100_000 + " }}",
}


def seconds_of(attack: str, message: str) -> float:
    """How long an attack takes to end in this error, beyond a template of one letter."""
    moments = [time.monotonic()]
    for template in ("x", attack):
        with pytest.raises(BadTokenizer, match=message) if template == attack else nullcontext():
            render(template)
        moments.append(time.monotonic())
    start, between, end = moments
    return (end - between) - (between - start)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_end_soon_in_an_error(name: str) -> None:
    assert seconds_of(ATTACKS[name], "the chat template") < IN_TIME


MEASURED = """
import resource, sys
from quantcli.chat import sandbox
from quantcli.errors import BadTokenizer
for template in {templates!r}:
    try: sandbox.render(template, {{"messages": []}})
    except BadTokenizer as error: assert "the chat template" in str(error)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
"""


def peak_of(templates: list[str]) -> int:
    """Bytes of memory of the largest process that rendered them."""
    program = MEASURED.format(templates=templates)
    return int(subprocess.run([sys.executable], input=program, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not system.memory_can_be_limited(), reason="the kernel keeps no limit of memory here")
def test_attacks_stay_within_their_memory() -> None:
    greedy = ["doubling", "doubling-lists", "joining", "repeated-text", "repeated-list", "padding", "source"]
    assert peak_of([ATTACKS[name] for name in greedy]) - peak_of(["x"]) < sandbox.MEMORY


# 120 MB in small steps, then a long loop that holds them: what watches has time to see it, and no machine is filled
HOLDING = "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = [n.x, 'x' * 1000 ~ i] %}{% endfor %}"


@pytest.mark.parametrize("attack, message", [(HOLDING + ATTACKS["loops"], "64 MB"), (ATTACKS["loops"], "2 s")])
def test_a_process_is_watched_where_the_kernel_keeps_no_limit(
    attack: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS."""
    monkeypatch.setattr(system, "memory_can_be_limited", lambda: False)
    if message == "64 MB":
        monkeypatch.setattr(sandbox, "SECONDS", 60)
    with pytest.raises(BadTokenizer, match=message):
        render(attack)


def test_a_broken_interpreter_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # no Jinja there
    monkeypatch.setattr(sandbox, "available", lambda: True)
    with pytest.raises(BadTokenizer, match="broke off"):
        render("x")


def test_several_templates_are_checked_at_once() -> None:
    found = sandbox.problems(
        {"good": "{{ unknown() }}", "bad": "\n{% for %}", "too long": "x" * (2 << 20), "later": "{{ 1 | nope }}"}
    )
    assert list(found) == ["bad", "too long", "later"]  # what only fails for a conversation compiles
    assert found["bad"].startswith("fails in line 2") and "1,048,576 characters" in found["too long"]
    powers = "{% set a = 7 ** (2 * 10**7) %}" * 50  # computed when it is compiled
    slow = sandbox.problems({"first": "x", "slow": powers, "after": "x"})
    assert "first" not in slow and slow["slow"] == slow["after"] == "takes more than 2 s"


def test_the_limits_of_the_interpreter_end_it_alone() -> None:
    """A process whose parent was killed: nobody watches, and processor time ends it."""
    limits = {"memory": None, "seconds": 1, "characters": 10}
    request = {"path": sys.path, "limits": limits, "templates": [ATTACKS["loops"]], "context": {}}
    done = subprocess.run(
        [sys.executable, "-I", "-S", interpreter.__file__], input=json.dumps(request).encode(), capture_output=True
    )
    assert done.returncode < 0
