#!/usr/bin/env python3
"""Nanoseconds per weight and core of every encoder (and decoder), beside llama.cpp's where it is installed.

    python scripts/bench_kernels.py [--types Q4_K,Q6_K] [--searches ggml] [--isas avx2,scalar] [--decode] [--json]

256 rows x 4096 columns of normal weights, with lognormal importance and without; the contenders take turns in one
process, the median CPU time of the thread counts. llama.cpp is `ggml_quantize_chunk` of the library inside
llama-cpp-python (`pip install '.[peers]'`), or of --ggml FILE. For the search "ggml" the bytes must be equal.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from quantcli import formats, kernels  # noqa: E402

ROWS, COLUMNS = 256, 4096


def find_ggml(path: Path | None) -> Path | None:
    """The file of libggml-base: as given, or inside an installed llama-cpp-python."""
    if path is not None:
        return path
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "lib"
    return next((file for name in ("libggml-base.so", "libggml-base.dylib") if (file := folder / name).exists()), None)


def ggml_encoder(library: Path) -> Callable:
    """`encode(type_id, x, importance, out)` through ggml_quantize_chunk."""
    chunk = ctypes.CDLL(str(library)).ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]

    def encode(type_id, x, importance, out):
        weights = None if importance is None else importance.ctypes.data
        chunk(type_id, x.ctypes.data, out.ctypes.data, 0, *x.shape, weights)

    return encode


def nanoseconds(contenders: dict[str, Callable[[], None]], rounds: int, weights: int) -> dict[str, float]:
    """Median ns per weight of each contender; one warm-up each, then they take turns."""
    times: dict[str, list[int]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.thread_time_ns()
            run()
            if turn:
                times[name].append(time.thread_time_ns() - start)
    return {name: statistics.median(spent) / weights for name, spent in times.items()}


def bench_encoder(row: formats.TensorType, search: str, importance, x, isas: list[str], ggml, rounds: int) -> dict | None:
    """One line of the table, or None where there is no such encoder."""
    width = formats.row_bytes(row, COLUMNS)
    outs = {name: numpy.zeros((ROWS, width), numpy.uint8) for name in [*isas, "ggml"]}
    try:
        kernels.encode(row.id, x[:1], importance, search=search, out=outs[isas[0]])
    except kernels.NoKernel:
        return None
    contenders: dict[str, Callable[[], None]] = {
        isa: lambda isa=isa: kernels.encode(row.id, x, importance, search=search, out=outs[isa], isa=isa) for isa in isas}
    refused = importance is None and row.name in ("IQ2_XXS", "IQ2_XS", "IQ1_S")      # ggml aborts without importance
    if ggml and row.name != "F32" and not refused:
        contenders["ggml"] = lambda: ggml(row.id, x, importance, outs["ggml"])
    times = nanoseconds(contenders, rounds, x.size)
    peer = times.pop("ggml", None)
    return {"type": row.name, "search": search, "importance": importance is not None, "ggml": peer, "ns": times,
            "ratio": {isa: peer / ns for isa, ns in times.items()} if peer else None,
            "same_bytes": all(numpy.array_equal(outs[isa], outs["ggml"]) for isa in isas) if peer else None}


def bench_decoder(row: formats.TensorType, x, isas: list[str], rounds: int) -> dict:
    """Decoding of random blocks, ns per weight and GB/s of float32 written."""
    generator = numpy.random.default_rng(row.id)
    raw = generator.integers(0, 256, (ROWS, formats.row_bytes(row, COLUMNS)), numpy.uint8)
    out = numpy.empty_like(x)
    contenders = {isa: lambda isa=isa: kernels.decode(row.id, raw, ROWS, COLUMNS, out, isa=isa) for isa in isas}
    times = nanoseconds(contenders, rounds, x.size)
    return {"type": row.name, "ns": times, "gigabytes_per_second": {isa: 4 / ns for isa, ns in times.items()}}


def encoder_line(result: dict, isas: list[str]) -> str:
    name = f"{result['type']:8}{result['search']:6}{'imatrix' if result['importance'] else 'plain':8}"
    peer = f"{result['ggml']:9.2f}" if result["ggml"] else f"{'-':>9}"
    ratio = result["ratio"] or {}
    ours = "".join(f"{result['ns'][isa]:9.2f}" + (f" {ratio[isa]:5.1f}x" if ratio else " " * 7) for isa in isas)
    same = {True: "equal", False: "differ", None: ""}[result["same_bytes"]]
    return f"{name}{peer}{ours}  {same}"


def decoder_line(result: dict, isas: list[str]) -> str:
    speeds = result["gigabytes_per_second"]
    return f"{result['type']:8}" + "".join(f"{result['ns'][isa]:9.3f} {speeds[isa]:5.1f} " for isa in isas)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usable = [name for name, supported in kernels.instruction_sets() if supported and name != "emu16"]
    parser.add_argument("--types", type=lambda text: text.upper().split(","), help="default: every type with a kernel")
    parser.add_argument("--searches", type=lambda text: text.split(","), default=list(kernels.SEARCHES))
    parser.add_argument("--isas", type=lambda text: text.split(","), default=usable, help=f"default: {','.join(usable)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ggml", type=Path, help="libggml-base.so to compare with")
    parser.add_argument("--decode", action="store_true", help="decoders instead of encoders")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    generator = numpy.random.default_rng(1)
    x = generator.normal(0, 0.02, (ROWS, COLUMNS)).astype(numpy.float32)
    importance = generator.lognormal(0, 1, COLUMNS).astype(numpy.float32)
    library = find_ggml(options.ggml)
    rows = [row for row in formats.BY_ID.values() if options.types is None or row.name in options.types]
    results = []

    def add(result: dict | None, line: Callable) -> None:
        if result is not None:
            results.append(result)
            if not options.json:
                print(line(result, options.isas), flush=True)

    if not options.json:
        units = "".join(f"{isa:>9}" + ("  GB/s " if options.decode else "       ") for isa in options.isas)
        print(f"ns per weight on one core, {ROWS} x {COLUMNS}, median of {options.rounds}; {platform.machine()}")
        print(f"{'type':8}{units}" if options.decode else f"{'type':8}{'search':6}{'':8}{'ggml':>9}{units}")
    if options.decode:
        for row in rows:
            if kernels.can_decode(row.id):
                add(bench_decoder(row, x, options.isas, options.rounds), decoder_line)
    else:
        ggml = ggml_encoder(library) if library else None
        for row in rows:
            for search in options.searches:
                for weights in (None, importance) if row.importance != "ignored" else (None,):
                    add(bench_encoder(row, search, weights, x, options.isas, ggml, options.rounds), encoder_line)
    if options.json:
        print(json.dumps({"schema": 1, "machine": platform.machine(), "rows": ROWS, "columns": COLUMNS, "ggml": library is not None,
                          "decode": options.decode, "results": results}, indent=1))


if __name__ == "__main__":
    main()
