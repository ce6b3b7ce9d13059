"""README.md says what the program does: generated tables, sizes, options and files that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from quantcli.cli.parse import convert_request
from quantcli.commands import convert


def script(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, root / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_models_is_up_to_date(root: Path) -> None:
    page = script(root, "models_page")
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run python scripts/models_page.py"
    assert {name for group in page.GROUPS.values() for name in group} <= page.families.registry().keys()


def test_generated_parts_are_up_to_date(root: Path) -> None:
    tables = script(root, "readme_tables")
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.render(text) == text, f"{page.name}: run python scripts/readme_tables.py"


def test_the_size_that_the_demo_prints(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"tiny-Q4_K_M\.gguf +Q4_K_M +([\d,]+) +([\d.]+)", text)
    (output,) = convert.run(convert_request(source=root / "examples/tiny", types=("Q4_K_M",), dry_run=True))["outputs"]
    assert (shown[1], shown[2]) == (f"{output['bytes']:,}", f"{output['bpw']:.3f}")


def test_options_and_links_exist(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    declared = "".join(p.read_text(encoding="utf-8") for p in (root / "quantcli" / "cli").glob("*.py"))
    declared += "".join(p.read_text(encoding="utf-8") for p in (root / "scripts").glob("*.py"))
    declared += "".join(
        f"--{name.replace('_', '-')}" for name in re.findall(r"^ +(\w+): Annotated", declared, re.MULTILINE)
    )
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)):
        assert option in declared or option in ("--version", "--install-completion"), option
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (root / link).exists(), link
