"""Write quantcli/api/results/, the dataclasses of the Python interface, and tests/golden/schemas.json, the published
schemas, from the types of the commands' results."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, is_typeddict

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from quantcli.report import schemas

FOLDER = ROOT / "quantcli" / "api" / "results"
PUBLISHED = ROOT / "tests" / "golden" / "schemas.json"
BASE = "base.py"
HEAD = '''"""{purpose} Written by `python scripts/api_results.py` from {origin}: change that."""

from __future__ import annotations

{imports}
'''
BASE_TEXT = '''"""What all results have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """``json``: the object that --json prints."""

    json: Mapping[str, Any] = field(repr=False, compare=False)
'''
ALL = """The results of commands as dataclasses.

Shapes are in GGUF order (columns first), sizes in bytes, times in seconds. A field that is not always there is None
where it is not. ``json`` is the object that --json prints.
"""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
    published = {name: schemas.schema(name) for name in schemas.RESULTS}
    PUBLISHED.write_text(json.dumps(published, separators=(",", ":")) + "\n")
    for check in (("check", "--fix", "-q"), ("format", "-q")):
        subprocess.run([sys.executable, "-m", "ruff", *check, str(FOLDER)], check=True)
    print(f"{FOLDER.relative_to(ROOT)}: {len(list(every()))} classes")


def files() -> dict[str, str]:
    """Name -> text of every file: one for each module that has types of results."""
    modules: dict[str, list[type]] = {}
    for one in every():
        modules.setdefault(one.__module__, []).append(one)
    found = {BASE: BASE_TEXT}
    for module, typed in modules.items():
        found[f"{stem(module)}.py"] = file_text(module, typed)
    names = {"Result": "base"} | {one.__name__: stem(one.__module__) for one in every()}
    lines = [f"from quantcli.api.results.{home} import {name} as {name}" for name, home in names.items()]
    found["__init__.py"] = f'"""{ALL}"""\n\n' + "\n".join(sorted(lines, key=import_order)) + "\n"
    return found


def import_order(line: str) -> tuple[str, int, str]:
    """As ruff sorts them: constants, classes, functions; there are classes alone here."""
    words = line.split()
    return words[1], not words[3].isupper(), words[3]


def stem(module: str) -> str:
    return module.rpartition(".")[2]


def file_text(module: str, typed: Sequence[type]) -> str:
    body = "".join(map(declaration, typed))
    used = {one for each in typed for kind, _ in schemas.fields(each).values() for one in named(kind)}
    others = sorted((stem(one.__module__), one.__name__) for one in used if one.__module__ != module)
    generic = [name for name in ("Any", "Literal") if re.search(rf"\b{name}\b", body)]
    lines = ["from dataclasses import dataclass"]
    lines += [f"from typing import {', '.join(generic)}"] if generic else []
    lines += ["", "from quantcli.api.results.base import Result"]
    homes: dict[str, list[str]] = {}
    for home, name in others:
        homes.setdefault(home, []).append(name)
    lines += [f"from quantcli.api.results.{home} import {', '.join(names)}" for home, names in homes.items()]
    head = HEAD.format(purpose="Results as dataclasses.", origin=module, imports="\n".join(lines))
    return head + body


def named(hint: Any) -> Iterator[type]:
    """The typed dictionaries that a type names."""
    if is_typeddict(hint):
        yield hint
    elif get_origin(hint) is not Literal:
        for one in get_args(hint):
            yield from named(one)


def every() -> Iterator[type]:
    """All typed dictionaries of results, those that others hold first."""
    seen: set[type] = set()
    for found in schemas.RESULTS.values():
        for one in found:
            yield from below(one, seen)


def below(hint: Any, seen: set[type]) -> Iterator[type]:
    """The typed dictionaries in a type, once each."""
    if hint in seen:
        return
    if is_typeddict(hint):
        seen.add(hint)
        for kind, _ in schemas.fields(hint).values():
            yield from below(kind, seen)
        yield hint
    elif get_origin(hint) is not Literal:
        for one in get_args(hint):
            yield from below(one, seen)


def declaration(typed: type) -> str:
    lines = ["", "", "@dataclass(frozen=True, kw_only=True)", f"class {typed.__name__}(Result):"]
    documentation = (inspect.getdoc(typed) or "").splitlines()
    lines += [f'    """{documentation[0]}', *(f"    {line}".rstrip() for line in documentation[1:])]
    lines[-1] += '"""' if len(documentation) == 1 else '\n    """'
    found = schemas.fields(typed)
    lines += [f"    {name}: {spelt(kind)}" for name, (kind, always) in found.items() if always]
    lines += [f"    {name}: {optional(spelt(kind))} = None" for name, (kind, always) in found.items() if not always]
    return "\n".join(lines) + "\n"


def optional(kind: str) -> str:
    return kind if kind.endswith("| None") else f"{kind} | None"


def spelt(hint: Any) -> str:
    """A type as Python writes it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "Literal[" + ", ".join(f'"{one}"' for one in arguments) + "]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(spelt, arguments))
    if origin in (list, Sequence):
        return f"list[{spelt(arguments[0])}]"
    if origin in (dict, Mapping):
        return f"dict[str, {spelt(arguments[1])}]"
    return {type(None): "None", object: "Any"}.get(hint) or str(hint.__name__)


if __name__ == "__main__":
    main()
