"""What the program converts without Typer's validators is what these make of it, and nothing that they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from quantcli.cli import app, values

TEXTS = ("3", "0", "-1", " 4", "1_0", "7.5", "1e3", "x", "a,b", "tests", "Makefile", "no/x", "", "\udcff", "9" * 20)


def parser(name: str, classes: tuple[type, type], monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], object]:
    """What parses a line of one command: the arguments of its function, or what is wrong with the line."""
    with monkeypatch.context() as patched:
        for own, other in zip(("Group", "Command"), classes, strict=True):
            patched.setattr(app, own, other)
        program = typer.main.get_command(app.application((name,)))
    command, found = program.commands[name], {}  # type: ignore[attr-defined]
    command.callback = functools.wraps(command.callback)(lambda **given: found.update(given))

    def parse(words: list[str]) -> object:
        found.clear()
        try:
            program([name, *words], standalone_mode=False)
        except Exception as error:
            return type(error), str(error)
        return {key: (type(value), value) for key, value in found.items()}

    parse.options = command.params  # type: ignore[attr-defined]
    return parse


@pytest.mark.parametrize("name", app.COMMANDS)
def test_values_are_those_of_typer(name: str, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)
    looked: list[object] = []
    monkeypatch.setattr(values, "_one", lambda *given, _own=values._one: looked.append(given) or _own(*given))
    ours = parser(name, (values.Group, values.Command), monkeypatch)
    theirs = parser(name, (TyperGroup, TyperCommand), monkeypatch)
    arguments = [one for one in ours.options if one.param_type_name == "argument"]  # type: ignore[attr-defined]
    required = ["tests" for one in arguments if one.required]
    lines = [[], required, [*required, "two", "three"], *([*required[1:], text] for text in TEXTS)]
    for one in ours.options:  # type: ignore[attr-defined]
        if one not in arguments and not one.is_flag:
            lines += [[*required, one.opts[0], text] for text in TEXTS]
            lines.append([*required, one.opts[0], "4", one.opts[0], "9"])
    for words in lines:
        assert ours(words) == theirs(words), words
    assert looked
