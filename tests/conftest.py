"""Where the oracles are, and nothing else that more than one test file needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large oracles beside the repository; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("QUANTCLI_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the oracle folder {folder} is not here (set QUANTCLI_SHARED)")
    return folder
