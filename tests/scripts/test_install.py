"""What is installed: the table of platforms, the build for other systems, the man page, the metadata, the start."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def scripts(root: Path) -> None:
    sys.path.insert(0, str(root / "scripts"))


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_six_platforms() -> None:
    import build_wheels

    tags = [row.tag for row in build_wheels.PLATFORMS]
    assert len(set(tags)) == 6
    for kind in ("manylinux", "musllinux", "macosx"):
        machines = {re.search(r"(x86_64|aarch64|arm64)$", tag)[1] for tag in tags if tag.startswith(kind)}
        assert len(machines) == 2, kind
    for row in build_wheels.PLATFORMS:  # the tag promises what zig is told
        named = re.search(r"_(\d+)_(\d+)_", row.tag)
        if row.newest is not None:
            assert (int(named[1]), int(named[2])) == row.newest
            assert row.target.endswith(".".join(map(str, row.newest)))


@pytest.mark.parametrize(
    ("command", "name", "flag"),
    [
        ("python -m ziglang cc -target aarch64-macos.11.0", "libquantcli.dylib", "-mcpu=generic+v8_2a+dotprod"),
        ("python -m ziglang cc -target aarch64-linux-musl", "libquantcli.so", "-mcpu=generic+v8_2a+dotprod"),
        ("clang -target aarch64-linux-gnu", "libquantcli.so", "-march=armv8.2-a+dotprod"),
    ],
)
def test_the_compiler_says_for_which_system(
    command: str, name: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import build_kernels

    monkeypatch.setenv("CC", command)
    monkeypatch.setattr(build_kernels.shutil, "which", lambda name: name)
    assert build_kernels.library_name() == name
    assert build_kernels.machine_flags(command.split(), [])["backend_dotprod.c"] == [flag]


def test_the_slowest_files_are_compiled_first() -> None:
    import build_kernels

    names = [path.name for path in build_kernels.library_sources()]
    assert names[0].startswith("isa_") and not names[-1].startswith(build_kernels.SLOW)
    assert len(names) == len(set(names)) > 20


def test_the_man_page_says_what_the_help_says(tmp_path: Path, root: Path) -> None:
    from quantcli.cli.app import COMMANDS

    made = tmp_path / "quantcli.1"
    subprocess.run([sys.executable, root / "scripts" / "man_page.py", made], check=True, capture_output=True)
    page = made.read_text(encoding="utf-8")
    assert all(f'.SH "{name.upper()}"' in page for name in COMMANDS)
    assert "\\fB\\-\\-split\\-max\\-size\\fR \\fIN\\fR" in page and "\\fBconvert" not in page.split(".SH")[1]
    assert not re.search(r"^[.'](?!TH|SH|TP|PP|nf|fi)", page, re.MULTILINE)


def test_metadata(project: dict) -> None:
    made = project["project"]
    assert made["license"] == "MIT" and made["authors"] and made["requires-python"] == ">=3.11"
    assert not any("License ::" in line for line in made["classifiers"])  # not beside the expression
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["quantcli"]


def test_every_dependency_is_imported_by_the_package(project: dict, root: Path) -> None:
    """What nothing imports leaves the list."""
    modules = {"pyyaml": "yaml", "cffi": "_cffi_backend"}  # the binding that the build makes
    names = [re.split(r"[<>=! ]", line)[0] for line in project["project"]["dependencies"]]
    text = "\n".join(path.read_text(encoding="utf-8") for path in (root / "quantcli").rglob("*.py"))
    for name in names:
        module = modules.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", text, re.MULTILINE), name


def test_a_readme_for_package_pages_has_no_relative_link(root: Path) -> None:
    import package_page

    text = (root / "README.md").read_text(encoding="utf-8")
    absolute = package_page.absolute(text, "https://example.org/owner/quantcli", "v1")
    assert not re.search(r"\]\((?!https?://|#)", absolute)
    assert "](https://example.org/owner/quantcli/blob/v1/ARCHITECTURE.md)" in absolute
    plain = package_page.absolute(text, None, "v1")
    assert not re.search(r"\]\((?!https?://|#)", plain) and "ARCHITECTURE.md" in plain
