"""docs/sources.md says what is read: its table is fresh, names every method, and no type that carries nothing over."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from quantcli.ggml import packing
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.sources.packed import unpack


@pytest.fixture(scope="module")
def tables(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("source_tables", root / "scripts" / "source_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_fresh(tables: ModuleType, root: Path) -> None:
    text = (root / "docs" / "sources.md").read_text(encoding="utf-8")
    assert tables.render(text) == text, "run python scripts/source_tables.py"
    assert "<!-- sources -->" in text and "docs/sources.md" in (root / "README.md").read_text(encoding="utf-8")


def test_every_method_has_a_row(tables: ModuleType) -> None:
    assert {method for row in tables.ROWS for method in row.methods} == {one.method for one in unpack.FORMATS}


def test_types_that_carry_over_can(tables: ModuleType) -> None:
    for row in tables.ROWS:
        assert all(packing.can_snap(BY_NAME[name].id) for name in row.carried), row.name
