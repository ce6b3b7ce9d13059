#!/usr/bin/env python3
"""Pack the vocabularies of all oracle checkpoints of ../shared into tests/oracles/vocabularies.tar.xz.

    python scripts/pack_vocabularies.py

It holds the small files of each folder, ``<pack>/<name>/...``, with the ``tokenizer.*`` entries of expected.json alone;
weights and logits are left out. tests/helpers/vocabularies.py reads it."""

from __future__ import annotations

import argparse
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import oracles

PACKS = ("arch-new", "arch-more")
LEFT_OUT = (".safetensors", ".npz", ".safetensors.index.json")


def content(path: Path) -> bytes:
    """A file as it is packed."""
    if path.name != "expected.json":
        return path.read_bytes()
    entries = json.loads(path.read_bytes())["metadata"]
    kept = {key: value for key, value in entries.items() if key.startswith(("tokenizer.", "general.architecture"))}
    return json.dumps({"metadata": kept}).encode()


def files(shared: Path) -> dict[str, bytes]:
    """What the pack holds, by name; files of one name follow each other, for they are alike."""
    found = [
        path
        for pack in PACKS
        for expected in (shared / pack).glob("*/expected.json")
        for path in expected.parent.rglob("*")
        if path.is_file() and not path.name.endswith(LEFT_OUT)
    ]
    ordered = sorted(found, key=lambda path: (path.name, path))
    return {path.relative_to(shared).as_posix(): content(path) for path in ordered}


def packed(contents: dict[str, bytes]) -> bytes:
    """The archive: no times, no owner, the same bytes every time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return lzma.compress(stream.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    data = packed(files(parser.parse_args().shared))
    oracles.VOCABULARIES.write_bytes(data)
    print(f"{oracles.VOCABULARIES.relative_to(ROOT)}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
