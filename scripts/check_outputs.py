#!/usr/bin/env python3
"""Projectors and adapters against what llama.cpp's converter wrote, byte for byte; prints one line each and the bars.

    python scripts/check_outputs.py [--shared ../shared] [-v]

Every folder of ../shared/mmproj and ../shared/lora is converted to the type that its expected.json names, by the
command line; names, shapes, types, bytes and metadata of the file are compared. Then every projector is written beside
its text from one read, where the text's family is declared. Exit status 1 where anything differs."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import conversions
from quantcli.loader import open_model
from quantcli.model import Model


def quantcli(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run([sys.executable, "-m", "quantcli", *words], capture_output=True, text=True, cwd=ROOT)


def tensors(model: Model) -> dict[str, list[Any]]:
    """Shape, type and sha256 of every tensor of a file."""
    return {
        one.name: [[*one.shape], one.type.name, hashlib.sha256(one.reader.read_raw(0, one.rows)).hexdigest()]
        for one in model.tensors
    }


def differences(path: Path, record: dict[str, Any]) -> list[str]:
    """What a file has otherwise than recorded."""
    wanted = {row["name"]: [row["shape"], row["type"], row["sha256"]] for row in record["tensors"]}
    with open_model(path) as model:
        found = tensors(model)
        names = sorted(found.keys() | wanted.keys())
        return [
            *(f"tensor {name}: {found.get(name)}, expected {wanted.get(name)}" for name in names
              if found.get(name) != wanted.get(name)),
            *conversions.metadata_differences(model, record),
        ]  # fmt: skip


def check(folder: Path, options: Sequence[str], scratch: Path) -> list[str]:
    """What is wrong with one conversion."""
    record, output = conversions.expected(folder), scratch / f"{folder.parent.name}-{folder.name}.gguf"
    done = quantcli("convert", str(folder), "-t", record["outtype"], "-o", str(output), "--quiet", *options)
    return [done.stderr.strip()] if done.returncode else differences(output, record)


def beside(folder: Path, scratch: Path) -> list[str] | None:
    """What is wrong with text and projector from one read; None where no family declares the text."""
    record = json.loads((folder / "expected-text.json").read_text())
    place = scratch / f"{folder.name}-both"
    place.mkdir()
    done = quantcli("convert", str(folder), "-t", record["outtype"], "--mmproj", record["outtype"], "-o", str(place))
    if "no family declares" in done.stderr:
        return None
    if done.returncode:
        return [done.stderr.strip()]
    kind = conversions.expected(folder)["outtype"]
    text = next(path for path in place.iterdir() if not path.name.startswith("mmproj-"))
    found = differences(text, record)
    if kind == record["outtype"]:
        found += differences(place / f"mmproj-{folder.name}-{kind}.gguf", conversions.expected(folder))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every difference")
    given = parser.parse_args()
    lines: dict[str, list[bool]] = {"mmproj": [], "lora": [], "text and mmproj from one read": []}
    with tempfile.TemporaryDirectory(prefix="quantcli-outputs-") as place:
        scratch = Path(place)
        for kind in ("mmproj", "lora"):
            for path in sorted((given.shared.absolute() / kind).glob("*/expected.json")):
                folder = path.parent
                options = ["--mmproj-only"] if kind == "mmproj" else ["--lora-base", str(folder / "base")]
                rows = [(kind, check(folder, options, scratch))]
                if kind == "mmproj":
                    rows.append(("text and mmproj from one read", beside(folder, scratch)))
                for title, found in rows:
                    if found is None:
                        print(f"SKIP {title}: {folder.name}, no family declares its text")
                        continue
                    lines[title].append(not found)
                    print(f"{'FAIL' if found else 'PASS'} {title}: {folder.name}", flush=True)
                    for line in found if given.verbose else found[:3]:
                        print(f"     {line[:300]}")
    for title, results in lines.items():
        print(f"{title}: {sum(results)} of {len(results)}")
    if not lines["mmproj"]:
        print(f"the oracle folder {given.shared} is not here", file=sys.stderr)
    return 0 if all(map(all, lines.values())) and lines["mmproj"] else 1


if __name__ == "__main__":
    sys.exit(main())
