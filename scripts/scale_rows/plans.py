"""Rows about plans: a dry run of a model of 10^12 weights."""

from __future__ import annotations

from scale_rows import MIB, Measure, Place, Row

SECONDS, MEMORY = 5.0, 400 * MIB


def dry_run(place: Place) -> list[Row]:
    """Time and memory of the plan of 61 layers with 384 experts, in 128 files of which every weight is a hole."""
    folder = place.scratch / "one-trillion"
    place.script("sparse_checkpoint.py", str(folder), "--shape", "1t")
    runs = [place.quantcli("convert", str(folder), "-t", "Q4_K_M", "--dry-run", "--json") for _ in range(3)]
    best = min(runs, key=lambda run: run.seconds)
    peak = max(run.peak for run in runs)
    what = "dry run of 1.03 * 10^12 weights (61 layers, 384 experts, 128 files)"
    return [
        (f"{what}: time", f"<= {SECONDS:g} s", f"{best.seconds:.1f} s", best.seconds <= SECONDS),
        (f"{what}: peak memory", f"<= {MEMORY // MIB} MiB", f"{peak / MIB:.0f} MiB", peak <= MEMORY),
    ]


ROWS: dict[str, Measure] = {"dry-run": dry_run}
