#!/usr/bin/env python3
"""Pack outlines of ../shared/mmproj and ../shared/lora into tests/golden (see tests/helpers/outlines.py).

    python scripts/pack_outlines.py

Needs the oracle folder; every checkpoint has to give the oracle's bytes first, or nothing is written."""

from __future__ import annotations

import argparse
import json
import lzma
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import outlines
from quantcli import loader
from quantcli.families.names import unwrapped
from quantcli.families.projectors.catalogue import find
from quantcli.model import Model

SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "adapter_config.json",
    "base/config.json",
)
KINDS = {"mmproj": "model.safetensors", "lora": "adapter_model.safetensors"}


def opened(kind: str, folder: Path) -> Model:
    """The projector or the adapter in a folder."""
    return loader.open_projector(folder) if kind == "mmproj" else loader.open_adapter(folder, folder / "base")


def header(path: Path) -> dict[str, list[Any]]:
    """Types and shapes of the tensors of a safetensors file."""
    data = path.read_bytes()
    rows = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    return {name: [row["dtype"], row["shape"]] for name, row in rows.items() if name != "__metadata__"}


def outline(kind: str, folder: Path) -> dict[str, Any]:
    """The outline of one oracle, checked against it."""
    expected = json.loads((folder / "expected.json").read_text())
    file_type = expected["outtype"]
    with opened(kind, folder) as model:
        found = outlines.digests(model, file_type)
    wanted = {row["name"]: [row["shape"], row["type"], row["sha256"]] for row in expected["tensors"]}
    if found != wanted:
        raise SystemExit(f"{folder}: other tensors than the oracle's; nothing is packed")
    files = {name: json.loads((folder / name).read_text()) for name in SETTINGS if (folder / name).is_file()}
    tensors = header(folder / KINDS[kind])
    if kind == "mmproj":
        projector = find(files["config.json"])
        assert projector is not None
        tensors = {name: row for name, row in tensors.items() if unwrapped(name).startswith(projector.parts)}
    one: dict[str, Any] = {"files": files, "tensors": tensors, "type": file_type, "metadata": expected["metadata"]}
    with tempfile.TemporaryDirectory() as place:
        made = outlines.write(one, Path(place) / folder.name, KINDS[kind])
        with opened(kind, made) as model:
            one["expected"] = {name: outlines.digests(model, name) for name in (file_type, "F16", "Q8_0")}
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    shared: Path = parser.parse_args().shared
    for kind in KINDS:
        found = {
            path.parent.name: outline(kind, path.parent) for path in sorted((shared / kind).glob("*/expected.json"))
        }
        for one in found.values():  # a hash of all that one file has is enough
            for file_type, tensors in one["expected"].items():
                digest = outlines.summary(tensors)
                shown = {name: row[:2] for name, row in tensors.items()} if file_type == one["type"] else None
                one["expected"][file_type] = {"sha256": digest, "tensors": shown}
        data = lzma.compress(json.dumps(found, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME)
        path = outlines.GOLDEN / f"{kind}.json.xz"
        path.write_bytes(data)
        print(f"{path.relative_to(ROOT)}: {len(found)} outlines, {len(data):,} bytes")


if __name__ == "__main__":
    main()
