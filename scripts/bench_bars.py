#!/usr/bin/env python3
"""The encoders against what they should reach, in one table: exactness, speed, error, one set of bytes, edges, recipes.

    python scripts/bench_bars.py [--shared ../shared] [--ggml FILE] [--quick] [--markdown docs/bars.md]

Speed and error are those of bench_kernels.py and bench_quality.py, against ggml in the same run where
llama-cpp-python is installed. Ten minutes on two cores; --quick measures speed on fewer rows and error on every
fourth one."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import bench_kernels
import bench_quality
import build_kernels
import kernel_report as report
from quantcli.ggml import kernels, tensor_types
from quantcli.plan import recipes

Row = tuple[str, str, str, bool]  # what, bar, measured, met
#: types of one bar (bench_quality.BARS; without one the mean may be 1); the worst tensor may be 1 everywhere
ERROR_GROUPS = (
    ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    ("IQ4_NL", "IQ4_XS"),
    ("Q4_K", "Q5_K", "Q2_K", "Q4_1", "Q5_1"),
    ("Q6_K",),
    ("Q3_K", "Q4_0", "Q5_0"),
    ("IQ1_S", "IQ1_M"),
)
THREADS = (1, 2, 3, 7)


def decoding() -> Iterator[Row]:
    """Every recorded block of every type, decoded by every instruction set."""
    equal = total = 0
    kinds = set()
    with numpy.load(ROOT / "tests" / "golden" / "blocks.npz") as golden:
        for key in golden.files:
            if not (key.startswith("decode/") and key.endswith("/bytes")):
                continue
            name = key.split("/")[1]
            row, raw, expected = tensor_types.by_name(name), golden[key], golden[f"decode/{name}/values"]
            kinds.add(name)
            for isa, usable in kernels.instruction_sets():
                if usable:
                    found = kernels.decode(row.id, raw, expected.size // row.block, row.block, isa=isa)
                    equal += found.tobytes() == expected.tobytes()
                    total += 1
    yield (
        f"decode, {len(kinds)} types",
        "bit-exact",
        f"{equal} of {total} recorded arrays and instruction sets",
        equal == total,
    )


def speed(options: argparse.Namespace) -> Iterator[Row]:
    """The bars of kernel_report.py for the types with a scale search."""
    usable = [name for name, supported in kernels.instruction_sets() if supported and name in ("avx2", "neon")]
    bench = bench_kernels.Bench(
        types.SimpleNamespace(
            ggml=options.ggml, isa=usable, rounds=None, quick=options.quick, searches=list(kernels.SEARCHES)
        )
    )
    encode = [bench.encoders(tensor_types.by_name(name), True) for name in report.SEARCHED]
    result = {"encode": [entry for entry in encode if entry], "isas": usable}
    source = "" if bench.ggml else ", ggml's figure recorded on another machine"
    for bar in report.bars(result):
        what = "all types with a search" if bar["of"] == len(report.SEARCHED) else " ".join(bar["names"])
        missed = "".join(f"; {name} {times:.1f}x" for name, times in bar["missed_by"].items())
        yield (
            f"`--search {bar['search']}`, {bar['isa']}, times faster than ggml{source}: {what}, {bar['what']}",
            f"{bar['bar']:g}x",
            f"{bar['reached']:.1f}x{missed}",
            bar["met"],
        )


def error(options: argparse.Namespace) -> Iterator[Row]:
    """Weighted error of `best` over ggml's, mean of the tensors and the worst: with our weights, and with ggml's."""
    model, matrix = options.shared / "models" / "mid", options.shared / "golden" / "mid-imatrix.gguf"
    if not model.is_dir():
        print(f"{model} is not there: no rows about the error", file=sys.stderr)
        return
    tensors = list(bench_quality.linear_tensors(model, matrix, 4 if options.quick else 1))
    ggml = bench_quality.reference(bench_kernels.find_ggml(options.ggml))
    lines = {name: bench_quality.measure(name, tensors, False, ggml) for names in ERROR_GROUPS for name in names}
    for of, weights in (("best", "importance alone, which `best` minimises"), ("ggml", "weights of ggml's searches")):
        for names in ERROR_GROUPS:
            bar = bench_quality.BARS.get(names[0], 1.0)
            found = {name: lines[name][of] for name in names}
            yield (
                f"weighted error over ggml's, mean of {len(tensors)} tensors (worst): {weights}",
                f"{bar:.2f} (1.00)",
                ", ".join(f"{name} {at['mean']:.3f} ({at['worst']:.3f})" for name, at in found.items()),
                all(at["mean"] <= bar and at["worst"] <= 1 for at in found.values()),
            )


def one_set_of_bytes() -> Iterator[Row]:
    """sha256 of every type and search, over instruction sets and threads."""
    generator = numpy.random.default_rng(11)
    x = (generator.standard_t(4, (84, 1024)) * 0.03).astype(numpy.float32)
    importance = generator.lognormal(size=1024).astype(numpy.float32)
    searches = [
        (row, search)
        for row in tensor_types.BY_ID.values()
        for search in kernels.SEARCHES
        if kernels.can_encode(row.id, search)
    ]

    def digest(isa: str, threads: int) -> str:
        total = hashlib.sha256()
        with ThreadPoolExecutor(threads) as pool:
            for row, search in searches:
                parts = numpy.array_split(x, threads)
                encode = partial(kernels.encode, row.id, importance=importance, search=search, isa=isa)
                for blocks in pool.map(encode, map(numpy.ascontiguousarray, parts)):
                    total.update(blocks.tobytes())
        return total.hexdigest()

    usable = [name for name, supported in kernels.instruction_sets() if supported]
    found = {digest(isa, threads) for isa in usable for threads in THREADS}
    yield (
        f"one sha256 for {len(searches)} types and searches over {', '.join(usable)} and "
        f"{', '.join(map(str, THREADS))} threads (NEON: `make test-arm64`)",
        "1",
        str(len(found)),
        len(found) == 1,
    )


def instruction_sets() -> Iterator[Row]:
    """No encoder, decoder or product is slower on a wider instruction set (csrc/tests/bench_sets.c)."""
    program = build_kernels.build_program(ROOT / "csrc" / "tests" / "bench_sets.c", ROOT / "build" / "bench_sets")
    done = subprocess.run([program, "--json"], capture_output=True, text=True)
    found = json.loads(done.stdout)
    slower = [f"{row['row']} {row['worst']:.2f}x" for row in found["rows"] if row["lost"]]
    worst = max(found["rows"], key=lambda row: row["worst"])
    measured = f"worst {worst['row']} {worst['worst']:.2f}x" if found["sets"] > 1 else "one set: nothing to compare"
    yield (
        f"time on a wider instruction set over that on a narrower one, {len(found['rows'])} rows of kernels",
        "1.05x, twice",
        "; ".join(slower) or measured,
        done.returncode == 0,
    )


def edges() -> Iterator[Row]:
    """The suite's edge patterns: an error, or valid blocks."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "tests/ggml/test_kernel_edges.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    yield (
        "NaN, Inf, denormal, huge and zero rows x every type (tests/ggml/test_kernel_edges.py)",
        "all",
        last,
        done.returncode == 0,
    )


def all_recipes(options: argparse.Namespace) -> Iterator[Row]:
    """Every file type of the mid model from one read."""
    model = options.shared / "models" / "mid"
    if not model.is_dir():
        return
    names = [name for name, row in recipes.FILE_TYPES.items() if row.selectable and not row.copies]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "quantcli",
            "convert",
            str(model),
            "-o",
            folder,
            "--json",
            "--imatrix",
            str(options.shared / "golden" / "mid-imatrix.gguf"),
            *(word for name in names for word in ("-t", name)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        yield "all recipes in one command", "all", done.stderr.strip(), False
        return
    made = json.loads(done.stdout)
    share = made["reading_seconds"] / made["threads"] / made["seconds"]
    count = len(made["outputs"])
    yield (
        f"all {len(names)} recipes of models/mid from one read",
        str(len(names)),
        f"{count} in {made['seconds']:.2f} s, {share:.1%} of it reading",
        count == len(names),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--ggml", type=Path, help="libggml-base.so to compare with")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too, dated")
    options = parser.parse_args()
    about = report.machine()
    lines = [
        f"{about['date']}, {about['cpu']}; `python scripts/bench_bars.py`",
        "",
        "| what | bar | measured | |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    missed = 0
    parts = (decoding(), speed(options), error(options), one_set_of_bytes(), instruction_sets(), edges())
    for part in (*parts, all_recipes(options)):
        for what, bar, measured, met in part:
            missed += not met
            lines.append(f"| {what} | {bar} | {measured} | {'met' if met else 'missed'} |")
            print(lines[-1], flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(["# The encoders against their bars", "", *lines, ""]), encoding="utf-8")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
