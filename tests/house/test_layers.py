"""Imports go downwards only: the floor of every room, checked against what its files really import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

# A file may import rooms of a lower floor, and its own room. What stands under `TYPE_CHECKING` counts like the rest.
FLOORS = {
    "errors": 0,
    "ggml": 1,
    "output": 1,
    "report": 1,
    "container": 2,
    "model": 3,
    "views": 4,
    "statistics": 4,
    "sources": 5,
    "plan": 5,
    "methods": 5,
    "vocab": 6,
    "encode": 6,
    "architectures": 6,
    "families": 7,
    "loader": 8,
    "runner": 9,
    "calibration": 11,
    "evaluate": 10,
    "commands": 12,
    "cli": 13,
}


def room(module: str) -> str:
    """The room of ``quantcli.room.module``."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> list[str]:
    """All ``quantcli.*`` modules that the file imports, at run time or for type checkers."""
    found = []
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.ImportFrom) and node.module == "quantcli":
            found += [f"quantcli.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quantcli."):
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("quantcli.")]
        stack.extend(ast.iter_child_nodes(node))
    return found


def sources(root: Path) -> list[Path]:
    return sorted((root / "quantcli").rglob("*.py"))


def test_imports_go_down(root: Path) -> None:
    wrong = []
    for path in sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        if len(parts) < 2 or parts[1] in ("__init__", "__main__"):
            continue
        own = room(".".join(parts))
        for module in imports(path):
            target = room(module)
            if target != own and FLOORS[target] >= FLOORS[own]:
                wrong.append(f"{path.relative_to(root)} ({own}) imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor(root: Path) -> None:
    rooms = {room(".".join(p.relative_to(root).with_suffix("").parts)) for p in sources(root)} - {
        "__init__",
        "__main__",
        "",
    }
    assert rooms <= set(FLOORS), f"give a floor to {rooms - set(FLOORS)}"


def test_files_stay_readable(root: Path) -> None:
    long = {str(p.relative_to(root)): n for p in sources(root) if (n := len(p.read_text("utf-8").splitlines())) > 450}
    assert not long, f"split these files: {long}"


@pytest.mark.parametrize("word", ["torch", "transformers"])
def test_no_heavy_framework(root: Path, word: str) -> None:
    users = [p for p in sources(root) if f"import {word}" in p.read_text("utf-8")]
    assert not users
