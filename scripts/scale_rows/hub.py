"""Rows about sources at the hub: a hub on this machine, limited like a link, against the same files in a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.loopback_hub import environment
from scale_rows import MIB, ROOT, Measure, Place, Row, Run

RATE, LATENCY = 300, 30  # MB/s of all connections together, milliseconds before every answer
SHARE = 0.9  # of the link, or of the encoder where it is slower
MEMORY = 300 * MIB  # beside the importance matrix
GIGABYTES, QUICK = 8.0, 0.5
TYPES = ("Q4_K_M", "IQ2_XS", "Q8_0")
CUTS = 10


@dataclass
class Served:
    """A conversion from the hub: the run, the bytes that the hub sent, what is left of the source on this machine."""

    run: Run
    sent: int
    kept: int


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[str, list[dict[str, int]]]]:
    """A hub with the repository org/name; its address, and in the end what it counted."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "loopback_hub.py"), str(folder), "org/name", *options]
    counted: list[dict[str, int]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip(), counted
            process.stdin.close()
            counted.append(json.loads(process.stdout.readline()))
        finally:
            process.kill()


def from_hub(place: Place, folder: Path, *arguments: str, options: tuple[str, ...] = ()) -> Served:
    home = place.scratch / "hub-home"
    with server(folder, *options) as (url, counted):
        run = place.quantcli("convert", "hf://org/name", *arguments, more=environment(url, home))
    kept = sum(path.stat().st_size for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return Served(run, counted[0]["sent"], kept)


def arguments(place: Place, types: tuple[str, ...], matrix: Path, output: str) -> list[str]:
    given = [word for one in types for word in ("-t", one)]
    return [*given, "--imatrix", str(matrix), "-o", f"{output}/", "--force", "--threads", str(place.threads), "--json"]


def sums(run: Run) -> dict[str, str]:
    """The sha256 of every output, by type."""
    return {one["type"]: one["sha256"] for one in json.loads(run.output)["outputs"]}


def throughput(place: Place) -> list[Row]:
    """A quick type, which the link limits, and a slow one, which the encoder does."""
    folder, matrix = place.checkpoint(QUICK if place.quick else GIGABYTES / 2)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    link, rows = ("--rate", str(RATE), "--latency", str(LATENCY)), []
    for kind in ("Q8_0", "Q4_K_M"):
        words = arguments(place, (kind,), matrix, f"out-{kind}")
        near = place.quantcli("convert", str(folder), *words)
        far = from_hub(place, folder, *words, options=link)
        seconds = [json.loads(run.output)["seconds"] for run in (near, far.run)]
        bound = min(RATE, size / 1e6 / seconds[0])
        share = size / 1e6 / seconds[1] / bound
        what = f"{kind} of {size / 1e9:.1f} GB, link of {RATE} MB/s and {LATENCY} ms: share of the slower of link and"
        told = f"{share:.0%}: {size / 1e6 / seconds[1]:.0f} MB/s, from a folder {size / 1e6 / seconds[0]:.0f} MB/s"
        rows.append((f"{what} a folder's speed", f">= {SHARE:.0%}", told, share >= SHARE))
    return rows


def memory(place: Place) -> list[Row]:
    """Three types from the hub: memory, disk, bytes that came."""
    gigabytes = QUICK if place.quick else GIGABYTES
    folder, matrix = place.checkpoint(gigabytes)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    found = from_hub(place, folder, *arguments(place, TYPES, matrix, "out-memory"))
    most = MEMORY + matrix.stat().st_size
    what = f"{size / 1e9:.1f} GB from the hub to {' + '.join(TYPES)}"
    peak = f"{found.run.peak / MIB:.0f} MiB (the matrix file has {matrix.stat().st_size / MIB:.0f})"
    kept = f"{found.kept / 1e6:.2f} MB of small files"
    return [
        (f"{what}: peak memory", f"<= {MEMORY // MIB} MiB + matrix", peak, found.run.peak <= most),
        (f"{what}: left beside the outputs", "small files only", kept, found.kept < 0.01 * size),
        (f"{what}: bytes that came", "<= 1.01x", f"{found.sent / size:.4f}x", found.sent <= 1.01 * size),
    ]


def cuts(place: Place) -> list[Row]:
    """Connections that break: the same files as undisturbed."""
    folder, matrix = place.checkpoint(QUICK)
    words = arguments(place, ("Q4_K_M", "Q8_0"), matrix, "out-cuts")
    whole = sums(from_hub(place, folder, *words).run)
    broken = from_hub(place, folder, *words, options=("--cuts", str(CUTS)))
    same = sums(broken.run) == whole
    return [(f"{CUTS} connections cut after 1 MB", "same sha256", "same" if same else "another", same)]


ROWS: dict[str, Measure] = {"hub-throughput": throughput, "hub-memory": memory, "hub-cuts": cuts}
