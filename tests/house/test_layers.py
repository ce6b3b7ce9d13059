"""Imports go downwards only: the floor of every room, checked against what its files really import."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import pytest

# A file may import rooms of a lower floor, and its own room. What stands under `TYPE_CHECKING` counts like the rest.
FLOORS = {
    "errors": 0,
    "system": 0,
    "ggml": 1,
    "architectures": 1,
    "chat": 1,
    "output": 1,
    "places": 1,
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
    "transforms": 6,
    "families": 7,
    "loader": 8,
    "runner": 9,
    "calibration": 10,
    "evaluate": 10,
    "engines": 11,
    "commands": 12,
    "torch": 13,
    "publishing": 13,
    "cli": 14,
    "api": 15,
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


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its full name; a package by that of its folder."""
    found = {}
    for path in sources(root):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(path: Path, known: Container[str]) -> set[str]:
    """The modules that the file names in any import: at the top, inside functions, for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "quantcli":
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Modules that reach each other, one list per circle: what stays after all that lead nowhere are taken away."""
    left = {module: set(targets) - {module} for module, targets in graph.items()}
    while dead := {module for module, targets in left.items() if not targets & left.keys()}:
        left = {module: targets for module, targets in left.items() if module not in dead}
    reach = {module: reachable(module, left) for module in left}
    groups = {frozenset(other for other in reach[module] if module in reach[other]) for module in left}
    return sorted(sorted(group) for group in groups if group)


def reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    stack = [start]
    while stack:
        new = (graph[stack.pop()] & graph.keys()) - found
        found |= new
        stack += new
    return found


def sources(root: Path) -> list[Path]:
    return [p for p in sorted((root / "quantcli").rglob("*.py")) if p.parent.name != "_lib"]  # made by the build


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


def test_no_circles(root: Path) -> None:
    """Between modules, also in one room: imports inside functions and under `TYPE_CHECKING` count like all others."""
    known = modules(root)
    graph = {module: imported_modules(path, known) for module, path in known.items()}
    assert not circles(graph)


def test_circles_are_found() -> None:
    graph = {"a": ["b"], "b": ["c", "d"], "c": ["b"], "d": ["e"], "e": [], "f": ["g", "f"], "g": ["h"], "h": ["f"]}
    assert circles(graph) == [["b", "c"], ["f", "g", "h"]]


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
    rooms = [p for p in sources(root) if p.parent.name != word]  # quantcli.torch is the extra of that name
    users = [p for p in rooms if f"import {word}" in p.read_text("utf-8") or f".{word} import" in p.read_text("utf-8")]
    assert not users
