"""Rows about a model that runs layer by layer, against the same run chunk by chunk."""

from __future__ import annotations

import json
from pathlib import Path

from scale_rows import ROOT, Measure, Place, Row

CHUNKS, QUICK_CHUNKS = 48, 8
TIME, ROOM = 1.15, 200_000_000  # of the run chunk by chunk; bytes beside one layer
WAYS = ("", "--layerwise")


def checkpoint() -> tuple[Path, int]:
    """SmolLM2-135M where it has been made (scripts/smollm2_checkpoint.py of the oracle folder), else the trained 23M
    model; and the bytes of its largest layer."""
    places = (ROOT / "build" / "SmolLM2-135M-Instruct", ROOT.parent / "shared" / "models" / "mid")
    found = next((path for path in places if (path / "config.json").exists()), ROOT / "examples" / "tiny")
    with open(found / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    layers: dict[str, int] = {}
    for name, one in header.items():
        if ".layers." in name:
            number = name.split(".layers.")[1].split(".")[0]
            start, stop = one["data_offsets"]
            layers[number] = layers.get(number, 0) + stop - start
    return found, max(layers.values())


def imatrix(place: Place) -> list[Row]:
    """Bytes, peak and time of `imatrix`; the better of three runs each, in turns."""
    model, layer = checkpoint()
    count = QUICK_CHUNKS if place.quick else CHUNKS
    best: dict[str, float] = {}
    peak, made = 0, {}
    for _ in range(1 if place.quick else 3):
        for way in WAYS:
            out = f"layerwise{way}.gguf"
            words = ["imatrix", str(model), "-o", out, "--chunks", str(count), "--force", "--quiet", *way.split()]
            run = place.quantcli(*words, "--threads", str(place.threads))
            best[way] = min(run.seconds, best.get(way, run.seconds))
            made[way] = (place.scratch / out).read_bytes()
            peak = run.peak if way else peak
    same, share = made[WAYS[0]] == made[WAYS[1]], best[WAYS[1]] / best[WAYS[0]]
    what = f"imatrix --layerwise of {model.name}, {count} chunks of 512"
    return [
        (f"{what}: bytes of the file", "those chunk by chunk", "equal" if same else "others", same),
        (
            f"{what}: peak memory",
            f"<= one layer ({layer / 1e6:.0f} MB) + {ROOM / 1e6:.0f} MB",
            f"{peak / 1e6:.0f} MB",
            peak <= layer + ROOM,
        ),
        (f"{what}: time", f"<= {TIME} x chunk by chunk", f"{share:.2f} ({best[WAYS[1]]:.1f} s)", share <= TIME),
    ]


ROWS: dict[str, Measure] = {"layerwise": imatrix}
