#!/usr/bin/env python3
"""What `quantcli convert --quality` gains at the same types and bytes, judged on three texts that it never sees.

    python scripts/fidelity.py --row mid/Q3_K_M [--quality best] [--shared ../shared] [--smollm2 FOLDER] [--threads 2]
    python scripts/fidelity.py [--output docs/fidelity.md]

With --row (repeatable) a row is measured and put into docs/fidelity.tsv: the baseline is llama-quantize's file with its
importance matrix (60 chunks of ../shared/text/calibration.txt; `--search ggml` writes the same bytes), both files are
compared with the float model by `quantcli compare` (q8 activations), 40 chunks of each text for mid, 20 for SmolLM2.
A ratio is the divergence over the baseline's; its error is paired over chunks. Without --row the table is printed from
the TSV, rows that are older than the code behind them marked as stale. Rows named by a type hold all matrices of the
blocks in it, the embedding as the recipe has it; `mid/=Q4_K_M` is a plan (`--like`) that is at most as large as the
baseline's file of that recipe.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from quantcli.report.measurements import ComparedModel, CompareResult
from quantcli.report.picture import standalone

TABLE = ROOT / "docs" / "fidelity.tsv"
BASELINE = "llama-quantize, imatrix"
TEXTS = ("wiki.test.raw", "books.txt", "code.txt")
CHUNKS = {"mid": 40, "smollm2": 20}
RECIPES = ("Q2_K_S", "Q3_K_M", "Q4_K_M", "IQ2_M")
CODE = (
    "quantcli/calibration",
    "quantcli/plan",
    "quantcli/transforms",
    "quantcli/methods",
    "csrc/encode",
    "quantcli/data",
)
TEXT_FIELDS = ("kld", "baseline_kld", "ratio", "ratio_se", "ln_ppl_ratio", "baseline_ln_ppl_ratio")
FIELDS = (
    *("model", "row", "quality", "settings", "ratio", "bytes", "seconds", "peak_mb", "commit", "date", "machine"),
    *(f"{text.split('.')[0]}_{field}" for text in TEXTS for field in TEXT_FIELDS),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], metavar="MODEL/TYPE", help="measure this row")
    parser.add_argument("--quality", default="best")
    parser.add_argument(
        "--option", action="append", default=[], help="one more word for convert, e.g. --option=--method"
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--smollm2", type=Path, default=ROOT / "build" / "SmolLM2-135M-Instruct")
    parser.add_argument("--chunks", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="folder that keeps the files, and the baselines for further rows")
    parser.add_argument("--output", type=Path, help="page to write the table into")
    parser.add_argument("--dry", action="store_true", help="print the measurement, don't write the TSV")
    return parser.parse_args()


def quantcli(*words: object) -> str:
    """Run the command of this checkout; its stdout."""
    command = [sys.executable, "-m", "quantcli", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def source_of(given: argparse.Namespace, model: str) -> Path:
    return given.smollm2 if model == "smollm2" else given.shared / "models" / model


def types_of(row: str) -> list[str]:
    """Options of convert: a recipe as it is, or one type for all matrices of the blocks."""
    if row.startswith("="):
        return ["-t", row[1:]]
    if row in RECIPES:
        return ["-t", row]
    base = {"Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M", "Q2_K": "Q2_K", "Q5_K": "Q5_K_M"}.get(row, row)
    return ["-t", base, "--tensor-type", rf"^blk\.[0-9]+\.(attn|ffn)_[a-z]+\.weight={row}"]


def baseline(given: argparse.Namespace, model: str, row: str, folder: Path) -> Path:
    """llama-quantize's file."""
    target = folder / f"{model}-{row}-baseline.gguf"
    if target.exists():
        return target
    matrix = given.shared / "golden" / "mid-imatrix.gguf"
    if model != "mid":
        matrix = folder / f"{model}-imatrix.gguf"
        if not matrix.exists():
            text = given.shared / "text" / "calibration.txt"
            quantcli("imatrix", source_of(given, model), "-f", text, "--chunks", 60, "-o", matrix)
    quantcli("convert", source_of(given, model), *types_of(row), "--search", "ggml", "--imatrix", matrix, "-o", target)
    return target


def measure(given: argparse.Namespace, name: str, folder: Path) -> dict[str, str]:
    """One row of the TSV."""
    model, row = name.split("/")
    other, made = baseline(given, model, row, folder), folder / f"{model}-{row}-{given.quality}.gguf"
    start = time.monotonic()
    types = ["--like", row[1:]] if row.startswith("=") else types_of(row)
    words = [*types, "--quality", given.quality, "--threads", given.threads, *given.option]
    quantcli("convert", source_of(given, model), *words, "-o", made, "--force")
    seconds = time.monotonic() - start
    if made.stat().st_size > other.stat().st_size and row.startswith("="):
        sys.exit(f"{made} is larger than {other}")
    found = {
        "model": model,
        "row": row,
        "quality": given.quality,
        "settings": " ".join(given.option),
        "bytes": str(made.stat().st_size),
        "seconds": f"{seconds:.0f}",
        "peak_mb": f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()} {given.threads} threads",
    }
    ratios = []
    for text in TEXTS:
        figures = compared(given, model, text, other, made)
        ratios.append(float(figures["ratio"]))
        found |= {f"{text.split('.')[0]}_{field}": value for field, value in figures.items()}
    found["ratio"] = f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}"
    return found


def compared(given: argparse.Namespace, model: str, text: str, other: Path, made: Path) -> dict[str, str]:
    """Figures of one text: of our file, of the baseline, and their paired ratio."""
    chunks = given.chunks or CHUNKS[model]
    words = ["-f", given.shared / "text" / text, "--chunks", chunks, "--threads", given.threads, "--json"]
    first, second = json.loads(quantcli("compare", source_of(given, model), made, other, *words))["models"]
    ours, theirs = first["per_chunk"], second["per_chunk"]
    ratio = sum(ours) / sum(theirs)
    gaps = [a - ratio * b for a, b in zip(ours, theirs, strict=True)]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))
    return {
        "kld": f"{first['kld']['mean']:.5f}",
        "baseline_kld": f"{second['kld']['mean']:.5f}",
        "ratio": f"{ratio:.4f}",
        "ratio_se": f"{spread / (sum(theirs) / len(theirs)):.4f}",
        "ln_ppl_ratio": f"{first['ppl']['ln_ratio']:.4f}",
        "baseline_ln_ppl_ratio": f"{second['ppl']['ln_ratio']:.4f}",
    }


# ---- the table


def rows() -> list[dict[str, str]]:
    if not TABLE.exists():
        return []
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def put(found: dict[str, str]) -> None:
    """Into the TSV, instead of an older measurement of the same."""
    key = ("model", "row", "quality", "settings")
    kept = [row for row in rows() if any(row[field] != found[field] for field in key)]
    part = TABLE.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, found], key=lambda row: [row[field] for field in key]))
    part.replace(TABLE)


def is_stale(row: dict[str, str]) -> bool:
    """Whether the code that makes the row changed since it was measured."""
    asked = ["git", "log", "--oneline", f"{row['commit']}..HEAD", "--", *CODE]
    return bool(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip())


def table() -> str:
    lines = [
        "| model | row | quality | ratio | wiki | books | code | seconds | peak MB | measured |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows():
        texts = [
            f"{float(row[f'{t}_ratio']):.3f} ± {float(row[f'{t}_ratio_se']):.3f}" for t in ("wiki", "books", "code")
        ]
        when = f"{row['date']}, {row['commit']}{', stale' if is_stale(row) else ''}"
        quality = f"{row['quality']} {row['settings']}".strip()
        cells = [row["model"], row["row"], quality, row["ratio"], *texts, row["seconds"], row["peak_mb"], when]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(model: str) -> str:
    """SVG: size against divergence (geometric mean of the texts) of the baselines, of the same types, of plans."""
    entries: dict[tuple[str, str], ComparedModel] = {}
    for row in (row for row in rows() if row["model"] == model and row["quality"] == "best"):
        name, planned = row["row"].removeprefix("="), row["row"].startswith("=")
        for text, field in (("planned, best" if planned else "same types, best", "kld"), (BASELINE, "baseline_kld")):
            logs = [math.log(float(row[f"{one.split('.')[0]}_{field}"])) for one in TEXTS]
            shown = {"mean": math.exp(sum(logs) / len(logs)), "se": 0.0}
            entries[text, name] = cast(
                "ComparedModel", {"name": name, "text": text, "bytes": int(row["bytes"]), "kld": shown}
            )
    reference = {"name": model, "kind": "checkpoint", "bytes": 0}
    return standalone(cast("CompareResult", {"models": list(entries.values()), "reference": reference}))


def main() -> None:
    given = arguments()
    for name in given.row:
        with tempfile.TemporaryDirectory() as scratch:
            folder = given.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            found = measure(given, name, folder)
        print("  ".join(f"{key}={found[key]}" for key in FIELDS if found.get(key)), flush=True)
        if not given.dry:
            put(found)
    if not given.row:
        text = table()
        print(text)
        if given.output:
            page = given.output.read_text(encoding="utf-8")
            before, after = page.split("<!-- measured -->\n")[0], page.split("<!-- /measured -->")[1]
            given.output.write_text(f"{before}<!-- measured -->\n{text}\n<!-- /measured -->{after}", encoding="utf-8")
            for model in sorted({row["model"] for row in rows()}):
                given.output.with_name(f"fidelity-{model}.svg").write_text(picture(model), encoding="utf-8")


if __name__ == "__main__":
    main()
