#!/usr/bin/env python3
"""Divergence of our files beside llama.cpp's: quantize a checkpoint as llama-quantize does, compare, print.

    python scripts/check_divergence.py ../shared                      # all types and texts: about an hour on two cores
    python scripts/check_divergence.py ../shared --types Q8_0 Q4_K_M --texts code
    python scripts/check_divergence.py ../shared --checkpoint SmolLM2-135M-Instruct --peer peer-smollm2.csv \\
        --imatrix auto --search best --chunks 20

FOLDER holds models/mid, golden/peer-mid.csv, golden/mid-imatrix.gguf and text/. A figure holds when it is within 5 % or
one standard error of llama.cpp's; for codebook types (IQ1 to IQ3), and with --search best, it may also be lower. Exit
status 1 otherwise. The last line is the geometric mean of the ratios.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from quantcli.cli.parse import convert_request
from quantcli.commands import compare, convert
from quantcli.report.terminal import Reporter
from quantcli.runner.session import RunOptions

TEXTS = {"wiki": "wiki.test.raw", "books": "books.txt", "code": "code.txt"}
TOLERANCE = 0.05
COLUMNS = (
    *("type", "text", "MB", "KLD", "peer", "+-", "ratio", "PPL", "peer"),
    *("same top", "peer", "RMS dp", "peer", ""),
)
MAY_BE_LOWER = ("IQ1", "IQ2", "IQ3")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", nargs="+", help="file types; default: all in the peer's table")
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--chunks", type=int, default=40, help="the peer's figures are those of 40")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--checkpoint", type=Path, help="default: FOLDER/models/mid")
    parser.add_argument("--peer", default="peer-mid.csv", help="the peer's table in FOLDER/golden")
    parser.add_argument(
        "--imatrix", help="a file, or auto for the bundled text. Default: FOLDER/golden/mid-imatrix.gguf"
    )
    parser.add_argument("--search", default="ggml", choices=("ggml", "best"))
    given = parser.parse_args()
    with open(given.folder / "golden" / given.peer, newline="") as file:
        peer = {(row["type"], row["text"]): row for row in csv.DictReader(file)}
    types = given.types or list(dict.fromkeys(name for name, _ in peer))
    with tempfile.TemporaryDirectory() as folder:
        return run(given, peer, types, Path(folder))


def quantize(given: argparse.Namespace, types: list[str], folder: Path, reporter: Reporter) -> None:
    """Write base.gguf (BF16) and a file of every type."""
    source = given.checkpoint or given.folder / "models" / "mid"
    matrix = Path(given.imatrix) if given.imatrix else given.folder / "golden" / "mid-imatrix.gguf"
    wanted = convert_request(source=source, types=("BF16",), output=folder / "base.gguf", imatrix=matrix)
    matrix = convert.calibrated(wanted, reporter).imatrix
    convert.run(replace(wanted, imatrix=None, collect=False))
    for name in types:
        output = folder / f"{name}.gguf"
        convert.run(convert_request(source=source, types=(name,), search=given.search, output=output, imatrix=matrix))


def run(given: argparse.Namespace, peer: dict, types: list[str], folder: Path) -> int:
    reporter = Reporter()
    quantize(given, types, folder, reporter)
    # The peer's base logits come from BF16 activations: "q8" is that beside BF16 weights.
    job = compare.prepare(
        compare.CompareRequest(
            reference=folder / "base.gguf",
            models=[folder / f"{name}.gguf" for name in types],
            chunks=given.chunks,
            texts=[given.folder / "text" / TEXTS[text] for text in given.texts],
            reference_activations="q8",
            options=RunOptions(activations="q8", threads=given.threads, length=512),
        )
    )
    try:
        result = compare.execute(job, reporter)
    finally:
        job.close()
    names = {file: text for text, file in TEXTS.items()}
    lines = [line(entry, peer[entry["name"], names[entry["text"]]], given.search) for entry in result["models"]]
    reporter.table(COLUMNS, [cells for cells, _, _ in lines], right=range(2, 13))
    held = sum(good for _, _, good in lines)
    mean = math.exp(sum(math.log(ratio) for _, ratio, _ in lines) / len(lines))
    reporter.line(f"{held} of {len(lines)} hold; geometric mean of the ratios {mean:.3f}")
    return 0 if held == len(lines) else 1


def line(entry: dict, row: dict, search: str) -> tuple[tuple[str, ...], float, bool]:
    """Of one file and text: the cells of the table, our divergence over the peer's, and whether that holds."""
    own, other, error = entry["kld"]["mean"], float(row["kld_mean"]), float(row["kld_se"])
    lower = own < other and (search == "best" or entry["name"].startswith(MAY_BE_LOWER))
    good = lower or abs(own / other - 1) <= TOLERANCE or abs(own - other) <= error
    divergences = (f"{own:.6f}", f"{other:.6f}", f"{error:.6f}", f"{own / other:.3f}")
    perplexities = (f"{entry['ppl']['mean']:.4f}", row["ppl"])
    tops = (f"{entry['same_top']:.2f}", row["same_top_pct"], f"{entry['rms_dp']:.3f}", row["rms_dp_pct"])
    head = (entry["name"], row["text"], f"{entry['bytes'] / 1e6:.1f}")
    return (*head, *divergences, *perplexities, *tops, "ok" if good else "DIFFERS"), own / other, good


if __name__ == "__main__":
    sys.exit(main())
