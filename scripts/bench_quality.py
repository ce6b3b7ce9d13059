#!/usr/bin/env python3
"""Weighted error of `--search best` against ggml's own search, per type: mean ratio over tensors, and the worst one.

    python scripts/bench_quality.py [--model ../shared/models/mid] [--imatrix ../shared/golden/mid-imatrix.gguf]
                                    [--types Q4_K,Q6_K] [--plain] [--step 4] [--ggml FILE] [--json] [--floor]

The objective is the one that ggml's search of the type minimises (scripts/objectives.py), over every linear tensor of the
blocks. The reference is ggml itself where llama-cpp-python is installed (or --ggml names libggml-base), else this build's
`--search ggml`, which writes the same bytes for the legacy, k and IQ4 types. `--step N` looks at every Nth row. `--floor`
shows for Q4_1 and Q5_1 what a search of 3,600 candidates for every block reaches, on a few rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import objectives  # noqa: E402
from bench_kernels import find_ggml, ggml_encoder  # noqa: E402
from quantcli import formats, imatrix, kernels  # noqa: E402
from quantcli.loader import open_model  # noqa: E402

SHARED = ROOT.parent / "shared"
#: type -> the mean ratio that it should reach with importance; every tensor should stay at or below 1
BARS = {
    "Q4_0": 1.0, "Q4_1": 0.97, "Q5_0": 1.0, "Q5_1": 0.97, "Q2_K": 0.97, "Q3_K": 1.0, "Q4_K": 0.97, "Q5_K": 0.97, "Q6_K": 0.93,
    "IQ2_XXS": 0.96, "IQ2_XS": 0.96, "IQ2_S": 0.96, "IQ3_XXS": 0.96, "IQ3_S": 0.96, "IQ4_NL": 0.95, "IQ4_XS": 0.95,
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
        out = numpy.empty((len(x), formats.row_bytes(row, x.shape[1])), numpy.uint8)
        encode(row.id, x, importance, out)
        return out

    return by_ggml


def ratio(name: str, x: numpy.ndarray, importance: numpy.ndarray | None, ggml: Callable) -> float:
    """Error of `best` over ggml's for one tensor."""
    row = formats.by_name(name)

    def error(raw: numpy.ndarray) -> float:
        return objectives.error(name, x, importance, kernels.decode(row.id, raw, *x.shape))

    return error(kernels.encode(row.id, x, importance, search="best")) / error(ggml(row, x, importance))


def nearly_best(bits: int, x: numpy.ndarray, w: numpy.ndarray) -> float:
    """Error of scale * code + min (real numbers, not fp16) after a wide search of every block.

    ``x``, ``w``: float64 [blocks, 32]. Every end of the codes' range on a grid of 60 x 60, least squares each, then eight
    rounds of codes and least squares from the best one.
    """
    most = (1 << bits) - 1
    low, span = x.min(axis=1, keepdims=True), numpy.maximum(numpy.ptp(x, axis=1, keepdims=True), 1e-30)
    sum_w, sum_x = w.sum(axis=1, keepdims=True), (w * x).sum(axis=1, keepdims=True)
    square = (w * x * x).sum(axis=1, keepdims=True)

    def solve(codes: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        weighted = w * codes
        l1, l2, xl = (part.sum(axis=1, keepdims=True) for part in (weighted, weighted * codes, weighted * x))
        determinant = numpy.maximum(sum_w * l2 - l1 * l1, 1e-300)
        scale = (sum_w * xl - sum_x * l1) / determinant
        least = (l2 * sum_x - l1 * xl) / determinant
        return scale, least, square - scale * xl - least * sum_x

    def codes_of(scale: numpy.ndarray, least: numpy.ndarray) -> numpy.ndarray:
        return numpy.clip(numpy.rint((x - least) / numpy.where(scale == 0, 1, scale)), 0, most)

    best = solve(codes_of(span / most, low))
    for below in numpy.linspace(-4, 2, 60):
        for above in numpy.linspace(-4, 2, 60):
            found = solve(codes_of(span / (most + below + above), low + below * span / (most + below + above)))
            best = tuple(numpy.where(found[2] < best[2], new, old) for new, old in zip(found, best, strict=True))
    for _ in range(8):
        found = solve(codes_of(best[0], best[1]))
        best = tuple(numpy.where(found[2] < best[2], new, old) for new, old in zip(found, best, strict=True))
    return float(best[2].sum())


def show_floor(tensors: list, ggml: Callable) -> None:
    """Mean over tensors of the error over ggml's on a few rows of each: `best`, and a nearly exhaustive search."""
    for name, bits in (("Q4_1", 4), ("Q5_1", 5)):
        row, ratios = formats.by_name(name), []
        for _, x, importance in tensors:
            part = numpy.ascontiguousarray(x[:: max(len(x) // 4, 1)][:4])
            weight = objectives.weights(name, part, importance)
            least = nearly_best(bits, part.astype(numpy.float64).reshape(-1, 32), weight.reshape(-1, 32))
            errors = [objectives.error(name, part, importance, kernels.decode(row.id, raw, *part.shape)) for raw in (
                kernels.encode(row.id, part, importance, search="best"), ggml(row, part, importance))]
            ratios.append((errors[0] / errors[1], least / errors[1]))
        own, floor = numpy.mean(ratios, axis=0)
        print(f"{name:8} best {own:.4f}, 3,600 candidates for every block {floor:.4f} (4 rows of each tensor)", flush=True)


def measure(name: str, tensors: list, plain: bool, ggml: Callable) -> dict:
    """One line of the table."""
    ratios = {tensor: ratio(name, x, None if plain else importance, ggml) for tensor, x, importance in tensors}
    worst = max(ratios, key=ratios.get)
    return {"type": name, "importance": not plain, "mean": float(numpy.mean(list(ratios.values()))),
            "worst": ratios[worst], "tensor": worst, "bar": None if plain else BARS.get(name)}


def show(line: dict) -> str:
    bar = line["bar"]
    met = "" if bar is None else ("  met" if line["mean"] <= bar and line["worst"] <= 1 else "  MISSED") + f" (bar {bar})"
    kind = "imatrix" if line["importance"] else "plain"
    return f"{line['type']:8} {kind:8} mean {line['mean']:.4f}  worst {line['worst']:.4f} {line['tensor']}{met}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "mid")
    parser.add_argument("--imatrix", type=Path, default=SHARED / "golden" / "mid-imatrix.gguf")
    parser.add_argument("--types", default=",".join(objectives.OBJECTIVES))
    parser.add_argument("--plain", action="store_true", help="without importance too")
    parser.add_argument("--step", type=int, default=1, help="every Nth row")
    parser.add_argument("--ggml", type=Path, help="libggml-base of the peer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--floor", action="store_true", help="only: how low a nearly exhaustive search comes")
    options = parser.parse_args()
    path = find_ggml(options.ggml)
    ggml = reference(path)
    tensors = list(linear_tensors(options.model, options.imatrix, options.step))
    lines = []
    print(f"{len(tensors)} tensors; reference: {'ggml' if path else 'this build, --search ggml'}", file=sys.stderr)
    if options.floor:
        show_floor(tensors, ggml)
        return
    for name in options.types.split(","):
        for plain in (False, True) if options.plain else (False,):
            if plain and name in NEEDS_IMPORTANCE or not kernels.can_encode(formats.by_name(name).id, "best"):
                continue
            lines.append(measure(name, tensors, plain, ggml))
            if not options.json:
                print(show(lines[-1]), flush=True)
    if options.json:
        print(json.dumps({"schema": 1, "lines": lines}, indent=2))


if __name__ == "__main__":
    main()
