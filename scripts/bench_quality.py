#!/usr/bin/env python3
"""Weighted error of `--search best` against ggml's own search, per type: mean ratio over tensors, and the worst one.

    python scripts/bench_quality.py [--model ../shared/models/mid] [--imatrix ../shared/golden/mid-imatrix.gguf]
                                    [--types Q4_K,Q6_K] [--plain] [--step 4] [--ggml FILE] [--json]

Over every linear tensor of the blocks, with the weights that `best` minimises (the importance alone) and, beside it,
with those of ggml's searches (scripts/objectives.py). The reference is ggml itself where llama-cpp-python is
installed (or --ggml names libggml-base), else this build's `--search ggml`, which writes the same bytes for the
legacy, k and IQ4 types. `--step N` looks at every Nth row."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import objectives
from bench_kernels import find_ggml, ggml_encoder
from quantcli.ggml import kernels, tensor_types
from quantcli.loader import open_model
from quantcli.statistics import imatrix

SHARED = ROOT.parent / "shared"
#: type -> the mean ratio that it should reach with importance; every tensor should stay at or below 1
BARS = {
    "Q4_0": 1.0,
    "Q4_1": 0.97,
    "Q5_0": 1.0,
    "Q5_1": 0.97,
    "Q2_K": 0.97,
    "Q3_K": 1.0,
    "Q4_K": 0.97,
    "Q5_K": 0.97,
    "Q6_K": 0.93,
    "IQ2_XXS": 0.96,
    "IQ2_XS": 0.96,
    "IQ2_S": 0.96,
    "IQ3_XXS": 0.96,
    "IQ3_S": 0.96,
    "IQ4_NL": 0.95,
    "IQ4_XS": 0.95,
}
NEEDS_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")


def linear_tensors(model: Path, imatrix_path: Path, step: int) -> Iterator[tuple[str, numpy.ndarray, numpy.ndarray]]:
    """(name, float32 [rows, columns], importance [columns]) of every matrix of the blocks that the imatrix knows."""
    importance = imatrix.read(imatrix_path)
    for tensor in open_model(model).tensors:
        values = importance.for_tensor(tensor.name, tensor.shape) if len(tensor.shape) == 2 else None
        if values is not None and tensor.name.startswith("blk."):
            rows = tensor.reader.read_rows(0, tensor.rows)[::step]
            yield tensor.name, numpy.ascontiguousarray(rows), numpy.ascontiguousarray(values[0])


def reference(path: Path | None) -> Callable:
    """`encode(row, x, importance)` -> bytes [rows, row_bytes] of ggml's search."""
    if path is None:
        return lambda row, x, importance: kernels.encode(row.id, x, importance, search="ggml")
    encode = ggml_encoder(path)

    def by_ggml(row, x, importance):
        out = numpy.empty((len(x), tensor_types.row_bytes(row, x.shape[1])), numpy.uint8)
        encode(row.id, x, importance, out)
        return out

    return by_ggml


def ratios(name: str, x: numpy.ndarray, importance: numpy.ndarray | None, ggml: Callable) -> dict[str, float]:
    """Error of `best` over ggml's for one tensor, with the weights of either."""
    row = tensor_types.by_name(name)
    ours, theirs = (
        kernels.decode(row.id, raw, *x.shape)
        for raw in (kernels.encode(row.id, x, importance, search="best"), ggml(row, x, importance))
    )
    return {
        of: objectives.error(name, x, importance, ours, of) / objectives.error(name, x, importance, theirs, of)
        for of in objectives.WEIGHTS
    }


def measure(name: str, tensors: list, plain: bool, ggml: Callable) -> dict:
    """One line of the table."""
    found = {tensor: ratios(name, x, None if plain else importance, ggml) for tensor, x, importance in tensors}
    line = {"type": name, "importance": not plain, "bar": None if plain else BARS.get(name)}
    for of in objectives.WEIGHTS:
        worst = max(found, key=lambda tensor: found[tensor][of])
        line[of] = {
            "mean": float(numpy.mean([each[of] for each in found.values()])),
            "worst": found[worst][of],
            "tensor": worst,
        }
    return line


def show(line: dict) -> str:
    best, ggml, bar = line["best"], line["ggml"], line["bar"]
    met = (
        "" if bar is None else ("  met" if best["mean"] <= bar and best["worst"] <= 1 else "  MISSED") + f" (bar {bar})"
    )
    kind = "imatrix" if line["importance"] else "plain"
    return (
        f"{line['type']:8} {kind:8} mean {best['mean']:.4f}  worst {best['worst']:.4f} {best['tensor']}{met}"
        f"; ggml's weights: {ggml['mean']:.4f} {ggml['worst']:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "mid")
    parser.add_argument("--imatrix", type=Path, default=SHARED / "golden" / "mid-imatrix.gguf")
    parser.add_argument("--types", default=",".join(objectives.OBJECTIVES))
    parser.add_argument("--plain", action="store_true", help="without importance too")
    parser.add_argument("--step", type=int, default=1, help="every Nth row")
    parser.add_argument("--ggml", type=Path, help="libggml-base of the peer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    path = find_ggml(options.ggml)
    ggml = reference(path)
    tensors = list(linear_tensors(options.model, options.imatrix, options.step))
    lines = []
    print(f"{len(tensors)} tensors; reference: {'ggml' if path else 'this build, --search ggml'}", file=sys.stderr)
    for name in options.types.split(","):
        for plain in (False, True) if options.plain else (False,):
            if (plain and name in NEEDS_IMPORTANCE) or not kernels.can_encode(tensor_types.by_name(name).id, "best"):
                continue
            lines.append(measure(name, tensors, plain, ggml))
            if not options.json:
                print(show(lines[-1]), flush=True)
    if options.json:
        print(json.dumps({"schema": 1, "lines": lines}, indent=2))


if __name__ == "__main__":
    main()
