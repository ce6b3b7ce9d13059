"""What not every operating system has is asked for in quantcli/system.py alone: a port changes one file.

What Windows lacks is read from the declarations of the standard library that mypy brings (typeshed).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SYSTEM = Path("quantcli/system.py")
#: what Windows has as well, but in its own way: descriptors in text mode, renaming that does not replace, ...
OTHERWISE = {("os", "open"), ("os", "rename"), ("os", "kill"), ("os", "getpgid"), ("os", "system"), ("os", "startfile")}


def declarations() -> Path:
    mypy = pytest.importorskip("mypy")
    return Path(mypy.__file__).parent / "typeshed" / "stdlib"


def stub(module: str) -> Path | None:
    place = declarations().joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".pyi"), place / "__init__.pyi") if p.exists()), None)


@cache
def names(module: str, platform: str) -> frozenset[str]:
    """The names that a module of the standard library has there."""
    path = stub(module)
    found = () if path is None else declared(ast.parse(path.read_text("utf-8")).body, platform)
    return frozenset(name for name in found if not name.startswith("_"))


def declared(body: list[ast.stmt], platform: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):
            found = holds(node.test, platform)
            yield from declared(node.body, platform) if found is not False else ()
            yield from declared(node.orelse, platform) if found is not True else ()
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)  # others are its own


def holds(test: ast.expr, platform: str) -> bool | None:
    """Whether a condition of a declaration holds; None where it is about something else."""
    try:
        return bool(eval(ast.unparse(test), {"sys": Stand(platform)}))
    except Exception:
        return None


class Stand:
    """`sys` on another platform."""

    def __init__(self, platform: str) -> None:
        self.platform, self.version_info = platform, sys.version_info


def uses(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of what a file takes of modules; the name of a module that is imported is ""."""
    tree, known = ast.parse(path.read_text("utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name] = alias.name
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in known:
            yield node.lineno, known[ast.unparse(node.value)], node.attr


def problems(path: Path) -> list[str]:
    found = []
    for line, module, name in uses(path):
        there, on_windows = names(module, "linux"), names(module, "win32")
        lacking = there and not on_windows if not name else name in there and name not in on_windows
        if lacking or (module, name) in OTHERWISE:
            found.append(f"{path}:{line}: {module}{name and '.'}{name}")
    return found


def test_only_one_file_asks_for_what_not_every_system_has(root: Path) -> None:
    files = [path for path in (root / "quantcli").rglob("*.py") if path != root / SYSTEM and path.parent.name != "_lib"]
    assert len(files) > 500
    wrong = [problem for path in files for problem in problems(path)]
    assert not wrong, "\n".join(["move them to quantcli/system.py:", *wrong])


def test_that_file_does(root: Path) -> None:
    found = {problem.rpartition(": ")[2] for problem in problems(root / SYSTEM)}
    assert {"fcntl.flock", "os.pread", "os.open", "resource", "signal.SIGHUP", "os.posix_fallocate"} <= found


def test_it_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "import os, signal as s\nfrom fcntl import flock\nfrom os import fork\nimport termios\n"
        "def f():\n    import resource\n    return os.preadv, os.path.join, os.fsync, s.SIGHUP, s.SIGINT, os.rename\n"
    )
    found = [problem.rpartition(": ")[2] for problem in problems(file)]
    wanted = ["termios", "fcntl.flock", "os.fork", "resource", "os.preadv", "signal.SIGHUP", "os.rename"]
    assert sorted(found) == sorted(wanted)


@pytest.mark.slow
def test_a_type_checker_for_windows_agrees(root: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    options = ["--platform", "win32", "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    said, _, status = api.run([*options, "--no-warn-unused-ignores", "-p", "quantcli"])
    files = {line.partition(":")[0].replace("\\", "/") for line in said.splitlines() if ": error: " in line}
    assert status == 1 and files == {str(SYSTEM)}, said
