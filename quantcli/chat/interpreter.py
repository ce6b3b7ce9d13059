"""A program of its own: compiles chat templates, or renders one, in Jinja's sandbox, with limits set on itself.

stdin holds one JSON object: ``path`` (of imports), ``limits``, ``templates`` (texts to compile), and ``context`` (the
variables) where the last template is rendered too. The text goes to stdout piece by piece, in UTF-8. stderr gets a
line when the limits are set, and one JSON object per template at its end: {"outcome", "line", "message"}.

The environment is the one that transformers renders chat templates in (`apply_chat_template`): the immutable sandbox,
`trim_blocks` and `lstrip_blocks`, loop controls, `{% generation %}`, `tojson`, `raise_exception`, `strftime_now`.
It is started by its file name and imports nothing of quantcli but system.py, so that its memory is an interpreter's and
Jinja's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

READY = "ready"
SHOWN = 300  # characters of a message


class Refused(Exception):
    """The template itself said no (raise_exception)."""


class TooLong(Exception):
    """More text than the limit."""


def make_environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from_jinja = [_generation_tag(), loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=from_jinja)
    environment.filters["tojson"] = to_json
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return environment


def _generation_tag() -> type:
    """The extension behind ``{% generation %}...{% endgeneration %}``, which marks what the assistant said.

    transformers makes it a call block, so variables set inside are not seen outside. Here the mark has no use.
    """
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.runtime import Macro

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

        def _unchanged(self, caller: Macro) -> str:
            return str(caller())

    return Generation


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter ``tojson`` as transformers has it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: object) -> None:
    """The function ``raise_exception``."""
    raise Refused(message)


def load_system() -> ModuleType:
    """quantcli/system.py by its place: the package around it is not imported."""
    specification = spec_from_file_location("system", Path(__file__).resolve().parent.parent / "system.py")
    assert specification is not None and specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def tell(**found: object) -> None:
    """One line on stderr."""
    os.write(2, (json.dumps(found) + "\n").encode())


def line_of(error: BaseException) -> int | None:
    """The line of the template where it happened: the innermost one."""
    from jinja2 import TemplateSyntaxError

    found = error.lineno if isinstance(error, TemplateSyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def attempt(environment: ImmutableSandboxedEnvironment, source: str, variables: object, longest: int) -> None:
    """Compile ``source``; with ``variables`` render it to stdout. Tells how it ended (not for MemoryError)."""
    outcome = "syntax"
    try:
        template = environment.from_string(source)
        outcome = "failed"
        if isinstance(variables, dict):
            write(template, variables, longest)
        return tell(outcome="ok")
    except MemoryError:
        raise
    except TooLong:
        return tell(outcome="length")
    except RecursionError as error:
        return tell(outcome=outcome, line=line_of(error), message="nested too deeply")
    except Exception as error:
        outcome = "refused" if isinstance(error, Refused) else outcome
        message = (str(error) or type(error).__name__)[:SHOWN]
        return tell(outcome=outcome, line=line_of(error), message=message)


def write(template: Template, variables: Mapping[str, object], longest: int) -> None:
    """The text to stdout as it comes. Raises TooLong."""
    left = longest
    for piece in template.generate(variables):
        left -= len(piece)
        if left < 0:
            raise TooLong
        sys.stdout.buffer.write(piece.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()


def main() -> None:
    """Read the request, do it."""
    request = json.load(sys.stdin.buffer)
    sys.path[:] = request["path"]
    environment = make_environment()
    limits, templates = request["limits"], request["templates"]
    load_system().limit_process(limits["memory"], limits["seconds"])
    tell(outcome=READY)
    for index, source in enumerate(templates):
        last = index + 1 == len(templates)
        try:
            attempt(environment, source, request.get("context") if last else None, limits["characters"])
        except MemoryError:
            os.write(2, b'{"outcome": "memory"}\n')


if __name__ == "__main__":
    main()
