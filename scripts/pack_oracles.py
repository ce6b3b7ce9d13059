#!/usr/bin/env python3
"""Pack oracle checkpoints of ../shared into tests/oracles, small enough for the repository.

    python scripts/pack_oracles.py                                 # all of ../shared/arch
    python scripts/pack_oracles.py --from ../shared/arch-new olmo3 exaone4

The folder's name becomes the pack's. What a packed file holds is said in tests/helpers/oracles.py. The weights of
these checkpoints are normal numbers from a seed per tensor; the seeds were found by trying all 2**32 (a tensor's
first 16 numbers tell) and are kept in tests/oracles/seeds.json.xz: {"pack/name": {"tensor": [seed, numbers passed
over]}}. A tensor without one is stored as it is. A pack is checked by unpacking it before it is left in place."""

from __future__ import annotations

import argparse
import json
import lzma
import struct
import sys
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import oracles
from helpers.normals import normals

SEEDS = oracles.PACKS / "seeds.json.xz"
WIDTH = {"F32": 4, "F16": 2, "BF16": 2}
SCALES = (0.5, 0.2, 0.15, 0.1, 0.05, 0.3, 1.0, 0.02, 1 / 6)  # beside 1.2 / sqrt(inputs); the last is granite's


def scales(shape: list[int]) -> list[float]:
    """What a tensor of this shape may have been multiplied by."""
    inputs = {*shape, int(numpy.prod(shape[1:])), int(numpy.prod(shape[-2:]))} - {0}
    return [*SCALES, *(1.2 / float(size) ** 0.5 for size in sorted(inputs))]


def find_draw(offset: int, dtype: str, shape: list[int], data: bytes, seed: int, start: int) -> oracles.Draw | None:
    """The draw that gives the most numbers of a tensor; None where it gives hardly any."""
    stored = numpy.frombuffer(data, f"<u{WIDTH[dtype]}")
    plain, best, most = normals(seed, start + stored.size)[start:], None, 0
    for mean in (0.0, 1.0):
        for scale in scales(shape):
            values = plain * numpy.float32(scale) + numpy.float32(mean)
            right = int((oracles.as_stored(values, dtype).view(stored.dtype) == stored).sum())
            if right > most:
                best, most = oracles.Draw(offset, stored.size, dtype, seed, start, scale, mean), right
    return best if most > stored.size // 2 else None


def find_draws(path: Path, seeds: dict[str, list[int]]) -> list[oracles.Draw]:
    """One for every tensor of a safetensors file whose seed is known."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    found = []
    for name, row in header.items():
        if name in seeds and row.get("dtype") in WIDTH:
            first, stop = (start + offset for offset in row["data_offsets"])
            found.append(find_draw(first, row["dtype"], row["shape"], data[first:stop], *seeds[name]))
    return [draw for draw in found if draw]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(source: Path, seeds: dict[str, list[int]]) -> str:
    """Pack one folder; a line about it."""
    draws = {path.name: find_draws(path, seeds) for path in source.glob("*.safetensors")}
    target = oracles.PACKS / source.parent.name / f"{source.name}{oracles.SUFFIX}"
    oracles.pack(source, target, draws)
    with tempfile.TemporaryDirectory() as folder:
        if contents(oracles.unpack(source.name, Path(folder))) != contents(source):
            target.unlink()
            raise SystemExit(f"{source} does not come back as it was")
    whole = sum(map(len, contents(source).values()))
    return f"{source.name:20} {sum(map(len, draws.values())):4} draws  {whole:9,} -> {target.stat().st_size:8,} bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=ROOT.parent / "shared" / "arch")
    parser.add_argument("names", nargs="*", help="checkpoints in that folder; default: all that hold expected.json")
    given = parser.parse_args()
    seeds = json.loads(lzma.decompress(SEEDS.read_bytes()))
    source = given.source.absolute()
    for name in given.names or sorted(path.parent.name for path in source.glob("*/expected.json")):
        print(pack(source / name, seeds.get(f"{source.name}/{name}", {})))


if __name__ == "__main__":
    main()
