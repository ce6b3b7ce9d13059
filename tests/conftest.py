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


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled checkpoint as GGUF files, by type."""
    from quantcli.cli.parse import convert_request
    from quantcli.commands import convert

    folder, types = tmp_path_factory.mktemp("tiny"), ("BF16", "Q8_0", "Q4_K_M", "Q2_K")
    convert.run(convert_request(source=ROOT / "examples" / "tiny", types=types, output=folder))
    return {name: folder / f"tiny-{name}.gguf" for name in types}


@pytest.fixture(scope="session")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 1,500 tokens of the bundled model that never changes."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    lines = [
        f"Chapter {n}. It was the {n} day of the voyage, and the captain said to {who}: the wind is {wind} again."
        for n in range(1, 13)
        for who, wind in (("me", "in the west"), ("the boy", "gone"), ("his wife", "rising"))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
