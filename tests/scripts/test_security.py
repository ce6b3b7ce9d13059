"""docs/security.md states the limits that the code has, and commands that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOC = Path(__file__).resolve().parents[2] / "docs" / "security.md"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "s": 1, "": 1}
ROWS = re.findall(
    r"^\| .* \| ([\d,]+) ?(\w*) \| `(quantcli\.[\w.]+)` \|$", DOC.read_text(encoding="utf-8"), re.MULTILINE
)


def value(name: str) -> object:
    """What a dotted name stands for: the longest part that is a module, then attributes."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise LookupError(name)


def test_every_limit_of_the_table_is_read() -> None:
    table = DOC.read_text(encoding="utf-8").split("## Limits")[1].split("\n## ")[0]
    assert len(ROWS) == len(re.findall(r"^\| ", table, re.MULTILINE)) - 1 and len(ROWS) > 20


@pytest.mark.parametrize(("number", "unit", "name"), ROWS)
def test_limits_are_those_of_the_code(number: str, unit: str, name: str) -> None:
    assert value(name) == int(number.replace(",", "")) * UNITS[unit]


def test_commands_exist() -> None:
    text, root = DOC.read_text(encoding="utf-8"), DOC.parents[1]
    makefiles = (root / "Makefile").read_text() + (root / "csrc" / "tests" / "kernels.mk").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)", text)):
        assert re.search(rf"^{target}:", makefiles, re.MULTILINE), target
    for script, options in re.findall(r"`python (scripts/\w+\.py)([^`]*)`", text):
        source = (root / script).read_text(encoding="utf-8")
        assert all(option in source for option in re.findall(r"--[a-z-]+", options)), script
