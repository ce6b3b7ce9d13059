#!/usr/bin/env python3
"""Speed of the runner: products per type against this core's peak, whole models against llama.cpp in the same run.

    python scripts/bench_runner.py [--types Q4_K,Q8_0] [--models FILE.gguf ... | --build FOLDER] [--threads 2]
                                   [--kinds FOLDER] [--peer FOLDER] [--batches 1,2,4,8,16] [--markdown FILE]

Products: 2048 x 2048 weights times 512 tokens (GFLOP/s) and 16384 x 2048 weights times one token (GB/s of weights),
one thread, best of several by that thread's CPU time, so that a busy machine disturbs little. Models: a prompt of 448
tokens and 64 generated ones, q8 activations (what llama.cpp does), taking turns with llama.cpp's library where
llama-cpp-python can be imported (`pip install '.[peers]'`); best of each, by wall time, with --threads 1 by CPU time.
--peer takes another build of it, that `pip install --target FOLDER` made; QUANTCLI_SIMD=avx2 beside one for AVX2.
--batches: the time that 16384 x 2048 weights take with so many tokens over that with one, by wall time.
--build makes the files in FOLDER where they are not there yet (15 GB): ../shared/models/mid where that exists, and a
checkpoint of 1.1B shape with random weights, in nine types each. --kinds makes models of other kinds than Llama in
FOLDER (scripts/kinds: a gated delta rule, Mamba 2, latent attention, experts; 100 to 150 million random weights each)
in two types and holds the medians of their prompts against llama.cpp's; exit status 1 where one is slower.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import kernel_report as report
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.ggml import kernels, tensor_types
from quantcli.runner.matrix_products import can_multiply
from quantcli.runner.operations import ACTIVATIONS
from quantcli.runner.products import Products
from quantcli.runner.replay import Stepper

COLUMNS, ROWS, TOKENS, ROWS_OF_ONE = 2048, 2048, 512, 16384
PROMPT, GENERATED = 448, 64  # together what a model of 512 positions takes
TYPES = (
    "F32,F16,BF16,Q8_0,Q4_0,Q5_0,Q4_1,Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_NL,IQ4_XS,IQ3_S,IQ3_XXS,IQ2_S,IQ2_XS,IQ2_XXS,"
    "IQ1_S,MXFP4"
)
FILE_TYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K", "IQ4_XS", "IQ3_S", "IQ2_XS")
KIND_TYPES = ("Q8_0", "Q4_K_M")
KIND_BAR = 1.0  # times llama.cpp's tokens per second, prompts of every kind


def best(run: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.thread_time) -> float:
    """Shortest time of `run`, called for about ``seconds`` after one warm-up."""
    run()
    shortest, end = math.inf, clock() + seconds
    while clock() < end:
        start = clock()
        run()
        shortest = min(shortest, clock() - start)
    return shortest


# ---- products


def peaks(products: Products) -> dict[str, float]:
    """Operations per second (10^9) of one core without memory, by mode."""
    result, rounds, pool = {}, 200_000, products.pool
    for mode in ACTIVATIONS:
        kind = getattr(pool.lib, f"QC_ACTIVATIONS_{mode.upper()}")
        count = pool.lib.qc_peak(pool.isa, kind, 1)
        result[mode] = count * rounds / best(partial(pool.lib.qc_peak, pool.isa, kind, rounds), 0.3) / 1e9
    return result


def sample(kind: tensor_types.TensorType) -> tuple[numpy.ndarray, numpy.ndarray]:
    """ROWS_OF_ONE rows of packed weights, repeated after 256, and float32 [TOKENS, COLUMNS] activations."""
    generator = numpy.random.default_rng(kind.id)
    part = generator.normal(0, 0.05, (256, COLUMNS)).astype(numpy.float32)
    raw = numpy.tile(kernels.encode(kind.id, part, numpy.ones(COLUMNS, numpy.float32)), (ROWS_OF_ONE // 256, 1))
    return raw, generator.standard_normal((TOKENS, COLUMNS)).astype(numpy.float32)


def measure_type(kind: tensor_types.TensorType, contenders: dict[str, Products], seconds: float) -> dict[str, float]:
    """GFLOP/s per mode for a batch, GB/s per mode for one token."""
    raw, x = sample(kind)
    out, one = numpy.empty((TOKENS, ROWS), numpy.float32), numpy.empty((1, ROWS_OF_ONE), numpy.float32)
    result = {}
    for mode, products in contenders.items():
        spent = best(lambda products=products: products.product(kind.id, raw, ROWS, x, out), seconds)
        result[mode] = 2 * ROWS * COLUMNS * TOKENS / spent / 1e9
        spent = best(lambda products=products: products.product(kind.id, raw, ROWS_OF_ONE, x[:1], one), seconds / 2)
        result[f"{mode} one"] = raw.nbytes / spent / 1e9
    return result


def product_table(names: list[str], isa: str | None, seconds: float) -> list[str]:
    contenders = {mode: Products(mode, 1, isa) for mode in ACTIVATIONS}
    roof = peaks(contenders["q8"])
    lines = [
        f"Peak of one core in registers ({isa or kernels.isa()}): float {roof['float']:.0f}, int16 "
        f"(and BF16 pairs where the CPU has them) {roof['int16']:.0f}, int8 {roof['q8']:.0f} GOP/s.",
        "",
        "| type | q8 GFLOP/s | of peak | int16 | float | of peak | one token, q8 GB/s | float GB/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        kind = tensor_types.by_name(name)
        if not can_multiply(kind.id):
            continue
        got = measure_type(kind, contenders, seconds)
        top = roof["q8" if kind.quantized else "int16" if name == "BF16" else "float"]
        lines.append(
            f"| {name} | {got['q8']:.0f} | {got['q8'] / top:.0%} | {got['int16']:.0f} | {got['float']:.0f} | "
            f"{got['float'] / roof['float']:.0%} | {got['q8 one']:.1f} | {got['float one']:.1f} |"
        )
    return lines


def batch_table(names: list[str], sizes: list[int], threads: int, isa: str | None, seconds: float) -> list[str]:
    """Rows of the table of batches: one token's GB/s of weights, the time of each batch over one token's."""
    products = Products("q8", threads, isa)
    lines = [
        f"Batches, {threads} threads ({isa or kernels.isa()}), q8: time over one token's.",
        "",
        "| type | one token, GB/s | " + " | ".join(f"{size} tokens" for size in sizes) + " |",
        "|---|---|" + "---|" * len(sizes),
    ]
    for name in names:
        kind = tensor_types.by_name(name)
        raw, x = sample(kind)
        spent = []
        for size in [1, *sizes]:
            out = numpy.empty((size, ROWS_OF_ONE), numpy.float32)
            run = partial(products.product, kind.id, raw, ROWS_OF_ONE, x[:size], out)
            spent.append(best(run, seconds, time.perf_counter))
        ratios = " | ".join(f"{batch / spent[0]:.2f}" for batch in spent[1:])
        lines.append(f"| {name} | {raw.nbytes / spent[0] / 1e9:.1f} | {ratios} |")
    return lines


# ---- whole models


class Ours:
    """A file in this project's runner."""

    def __init__(self, path: Path, threads: int) -> None:
        from quantcli.runner.session import RunOptions, open_session

        self.session = open_session(path, RunOptions(activations="q8", threads=threads))
        self.network = self.session.network
        self.network.load()

    def prompt(self, tokens: numpy.ndarray) -> None:
        cache = self.network.new_cache(1, PROMPT + GENERATED)
        self.network.forward(tokens[None], cache, len(tokens) - 1)
        self.step = Stepper(self.network, cache)

    def generate(self, tokens: numpy.ndarray) -> None:
        for token in tokens.tolist():
            self.step(token)

    def close(self) -> None:
        self.session.close()


class Llama:
    """The same file in llama.cpp, through llama-cpp-python."""

    def __init__(self, path: Path, threads: int) -> None:
        from llama_cpp import Llama as Model

        with open("/dev/null", "w") as nothing, contextlib.redirect_stderr(nothing):
            self.model = Model(
                str(path),
                n_ctx=PROMPT + GENERATED,
                n_batch=PROMPT,
                n_ubatch=PROMPT,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )

    def prompt(self, tokens: numpy.ndarray) -> None:
        self.model.reset()
        self.model.eval(tokens.tolist())

    def generate(self, tokens: numpy.ndarray) -> None:
        for token in tokens.tolist():
            self.model.eval([token])

    def close(self) -> None:
        self.model.close()


def measure_model(
    path: Path,
    contenders: dict[str, type],
    threads: int,
    rounds: int,
    chosen: Callable[[list[float]], float] = min,
) -> dict[str, tuple[float, float]]:
    """(prompt, generated) tokens per second of each contender, in turns; ``chosen`` of their times."""
    tokens = numpy.random.default_rng(1).integers(3, 2000, PROMPT + GENERATED)
    running = {name: make(path, threads) for name, make in contenders.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    clock = time.thread_time if threads == 1 else time.perf_counter
    for turn in range(rounds + 1):
        for name, model in running.items():
            start = clock()
            model.prompt(tokens[:PROMPT])
            middle = clock()
            model.generate(tokens[PROMPT:])
            if turn:
                times[name].append((middle - start, clock() - middle))
    for model in running.values():
        model.close()
    return {
        name: (PROMPT / chosen([t[0] for t in spent]), GENERATED / chosen([t[1] for t in spent]))
        for name, spent in times.items()
    }


def model_table(
    paths: list[Path],
    threads: int,
    rounds: int,
    show: Callable[[str], None],
    chosen: Callable[[list[float]], float] = min,
) -> float:
    """Show the table; returns the least ratio of prompts, infinity without llama.cpp."""
    peer = importlib.util.find_spec("llama_cpp") is not None
    contenders: dict[str, type] = {"quantcli": Ours, **({"llama.cpp": Llama} if peer else {})}
    show(
        f"Tokens per second, {threads} threads, prompt of {PROMPT}, then {GENERATED} one by one; q8 activations"
        + ("." if peer else "; llama.cpp is not installed here.")
    )
    show("")
    show("| file | prompt | llama.cpp | ratio | generated | llama.cpp | ratio |")
    show("|---|---|---|---|---|---|---|")
    ratios: tuple[list[float], list[float]] = ([], [])
    for path in paths:
        got = measure_model(path, contenders, threads, rounds, chosen)
        cells = []
        for part in (0, 1):
            ours, theirs = got["quantcli"][part], got.get("llama.cpp", (0, 0))[part]
            if theirs:
                ratios[part].append(ours / theirs)
            cells += [f"{ours:.1f}", f"{theirs:.1f}" if theirs else "-", f"{ours / theirs:.2f}" if theirs else "-"]
        show(f"| {path.stem} | " + " | ".join(cells) + " |")
    if ratios[0]:
        means = [math.exp(sum(map(math.log, part)) / len(part)) for part in ratios]
        least = [min(part) for part in ratios]
        show(f"| geometric mean (least) | | | {means[0]:.2f} ({least[0]:.2f}) | | | {means[1]:.2f} ({least[1]:.2f}) |")
    return min(ratios[0], default=math.inf)


def build(folder: Path) -> list[Path]:
    """The files of the second table: those of the trained model, then those of the large one."""
    shared, large = ROOT.parent / "shared", folder / "llama-1.1b"
    if not large.is_dir():
        command = [ROOT / "scripts" / "make_checkpoint.py", large, "--imatrix", folder / "llama-1.1b.imatrix.gguf"]
        subprocess.run([sys.executable, *map(str, command)], check=True)
    sources = {large: folder / "llama-1.1b.imatrix.gguf"}
    if (shared / "models" / "mid").is_dir():
        sources = {shared / "models" / "mid": shared / "golden" / "mid-imatrix.gguf", **sources}
    files = []
    for source, matrix in sources.items():
        made = [folder / f"{source.name}-{name}.gguf" for name in FILE_TYPES]
        missing = tuple(name for name, path in zip(FILE_TYPES, made, strict=True) if not path.exists())
        if missing:
            convert.run(convert_request(source=source, types=missing, imatrix=matrix, output=folder))
        files += made
    return files


def build_kinds(folder: Path) -> list[Path]:
    """The files of the third table: every config of scripts/kinds, in the types of ``KIND_TYPES``."""
    files = []
    for config in sorted((ROOT / "scripts" / "kinds").glob("*.json")):
        source = folder / config.stem
        made = [folder / f"{config.stem}-{name}.gguf" for name in KIND_TYPES]
        if not all(path.exists() for path in made):
            command = [ROOT / "scripts" / "make_checkpoint.py", source, "--config", config]
            subprocess.run([sys.executable, *map(str, command)], check=True, stdout=sys.stderr)
            convert.run(convert_request(source=source, types=KIND_TYPES, output=folder, force=True))
        files += made
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=TYPES, help="types of the first table, by commas; empty: no such table")
    parser.add_argument("--isa", help="instruction set of the first table (default: the best)")
    parser.add_argument("--models", type=Path, nargs="*", default=[], metavar="FILE", help="GGUF files for the second")
    parser.add_argument(
        "--build", type=Path, metavar="FOLDER", help="make the files of the second in FOLDER and take them"
    )
    parser.add_argument(
        "--kinds", type=Path, metavar="FOLDER", help="make models of other kinds than Llama there and measure them"
    )
    parser.add_argument("--peer", type=Path, metavar="FOLDER", help="the build of llama-cpp-python that lies there")
    parser.add_argument("--batches", metavar="SIZES", help="a table of batches instead of the first")
    parser.add_argument("--threads", type=int, default=2, help="threads of batches and of the second table")
    parser.add_argument("--rounds", type=int, default=3, help="turns per model")
    parser.add_argument("--seconds", type=float, default=0.3, help="time per product")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    if options.peer:
        sys.path.insert(0, str(options.peer))
    lines: list[str] = []

    def show(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    about = report.machine()
    show(f"{about['date']}, {about['cpu']}; `python scripts/bench_runner.py {' '.join(sys.argv[1:])}`")
    show("")
    if options.batches:
        sizes = [int(size) for size in options.batches.split(",")]
        for line in batch_table(options.types.split(","), sizes, options.threads, options.isa, options.seconds):
            show(line)
        show("")
    elif options.types:
        for line in product_table(options.types.split(","), options.isa, options.seconds):
            show(line)
        show("")
    if options.build:
        options.models += build(options.build)
    if options.models:
        model_table(options.models, options.threads, options.rounds, show)
    missed = False
    if options.kinds:
        files = build_kinds(options.kinds)
        show(f"Models of other kinds than Llama (`scripts/kinds`), random weights; medians of {options.rounds}.")
        least = model_table(files, options.threads, options.rounds, show, statistics.median)
        missed = least < KIND_BAR
        if math.isfinite(least):
            show("")
            show(f"Bar: prompts at least {KIND_BAR:.1f} times as fast as llama.cpp's: {'missed' if missed else 'met'}.")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
