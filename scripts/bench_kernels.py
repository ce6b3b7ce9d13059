#!/usr/bin/env python3
"""Nanoseconds per weight and core of every encoder and decoder, beside llama.cpp's, and the bars they should reach.

    python scripts/bench_kernels.py [--types Q4_K,Q6_K] [--isa avx2,scalar] [--searches ggml] [--quick] [--json]
                                    [--markdown FILE] [--plot docs/kernel-speed.svg]

256 rows x 4096 columns (fewer for types that are slow in llama.cpp) of normal weights, sigma 0.02, without importance
and with a lognormal one. The contenders take turns in one process and thread; the median CPU time of the thread
counts, the fastest call is shown too. llama.cpp is `ggml_quantize_chunk` of the library inside llama-cpp-python (`pip
install '.[peers]'`), or of --ggml FILE. Without it, recorded figures of another machine stand in, marked *."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import kernel_report as report
from quantcli.ggml import kernels, tensor_types

MOST_ROWS, COLUMNS = 256, 4096
RECORDED = ROOT / "tests" / "golden" / "ggml-speed.json"
NEEDS_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")  # ggml aborts without


def find_ggml(path: Path | None) -> Path | None:
    """The file of libggml-base: as given, or inside an installed llama-cpp-python."""
    if path is not None:
        return path
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "lib"
    return next((file for name in ("libggml-base.so", "libggml-base.dylib") if (file := folder / name).exists()), None)


def ggml_encoder(path: Path) -> Callable:
    """`encode(type_id, x, importance, out)` through ggml_quantize_chunk."""
    library = ctypes.CDLL(str(path))
    chunk, initialise = library.ggml_quantize_chunk, library.ggml_quantize_init
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    chunk.restype, chunk.argtypes = ctypes.c_size_t, [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    initialise.restype, initialise.argtypes = None, [ctypes.c_int]

    def encode(type_id, x, importance, out):
        initialise(type_id)
        chunk(
            type_id, x.ctypes.data, out.ctypes.data, 0, *x.shape, None if importance is None else importance.ctypes.data
        )

    return encode


def recorded(name: str, weighted: bool) -> dict | None:
    """ggml's recorded median and minimum, or None."""
    table = json.loads(RECORDED.read_text(encoding="utf-8"))["ns_per_weight"]["default"]
    return table.get(name, {}).get("imatrix" if weighted else "plain")


def alternate(contenders: dict[str, Callable[[], None]], rounds: int, weights: int) -> dict[str, dict[str, float]]:
    """Median and minimum ns per weight of each contender; one warm-up each, then they take turns."""
    times: dict[str, list[int]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.thread_time_ns()
            run()
            if turn:
                times[name].append(time.thread_time_ns() - start)
    return {
        name: {"median": statistics.median(spent) / weights, "min": min(spent) / weights}
        for name, spent in times.items()
    }


def rows_for(name: str, weighted: bool, quick: bool) -> int:
    """Rows so that a call of ggml takes at most a fifth of a second; a multiple of 16."""
    known = recorded(name, weighted) or {"median": 1.0}
    return int(min(64 if quick else MOST_ROWS, max(16, 0.2e9 / (known["median"] * COLUMNS) // 16 * 16)))


class Bench:
    """The inputs, the contenders, and what was measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        generator = numpy.random.default_rng(1)
        self.x = generator.normal(0, 0.02, (MOST_ROWS, COLUMNS)).astype(numpy.float32)
        self.importance = generator.lognormal(0, 1, COLUMNS).astype(numpy.float32)
        library = find_ggml(options.ggml)
        self.ggml = ggml_encoder(library) if library else None
        self.isas, self.rounds, self.quick = options.isa, options.rounds or (3 if options.quick else 5), options.quick
        self.searches = options.searches

    def encoders(self, row: tensor_types.TensorType, weighted: bool) -> dict | None:
        """All searches and instruction sets of one type, and ggml, in turns; None where nothing can be measured."""
        searches = [search for search in self.searches if kernels.can_encode(row.id, search)]
        if row.importance == "ignored":
            searches = searches[:1]  # no search: the same function
        if not searches or (not weighted and row.importance == "required"):
            return None
        x, importance = self.x[: rows_for(row.name, weighted, self.quick)], self.importance if weighted else None
        width = tensor_types.row_bytes(row, COLUMNS)
        out = {key: numpy.zeros((len(x), width), numpy.uint8) for key in ("ours", "ggml")}
        contenders: dict[str, Callable[[], None]] = {
            f"{search} {isa}": lambda search=search, isa=isa: kernels.encode(
                row.id, x, importance, search=search, out=out["ours"], isa=isa
            )
            for search in searches
            for isa in self.isas
        }
        if self.ggml and row.name != "F32" and (weighted or row.name not in NEEDS_IMPORTANCE):
            contenders["ggml"] = lambda: self.ggml(row.id, x, importance, out["ggml"])
        times = alternate(contenders, self.rounds, x.size)
        same, measured = None, "ggml" in times
        if measured and "ggml" in searches:
            same = all(
                numpy.array_equal(kernels.encode(row.id, x, importance, isa=isa), out["ggml"]) for isa in self.isas
            )
        return {
            "type": row.name,
            "importance": weighted,
            "rows": len(x),
            "same_bytes": same,
            "ggml": times.pop("ggml", None) or recorded(row.name, weighted),
            "measured": measured,
            "ours": times,
        }

    def decoder(self, row: tensor_types.TensorType) -> dict:
        """Decoding of random blocks."""
        raw = numpy.random.default_rng(row.id).integers(0, 256, (64, tensor_types.row_bytes(row, COLUMNS)), numpy.uint8)
        out = numpy.empty((64, COLUMNS), numpy.float32)
        contenders = {isa: lambda isa=isa: kernels.decode(row.id, raw, 64, COLUMNS, out, isa=isa) for isa in self.isas}
        return {"type": row.name, "ours": alternate(contenders, 2 * self.rounds, out.size)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usable = [name for name, supported in kernels.instruction_sets() if supported and name != "emu16"]
    usable.sort(key=lambda name: name == "scalar")

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--types", type=lambda text: words(text.upper()), help="default: every type with a kernel")
    parser.add_argument("--searches", type=words, default=list(kernels.SEARCHES), help="default: ggml,best")
    parser.add_argument("--isa", type=words, default=usable, help=f"default: {','.join(usable)}")
    parser.add_argument("--rounds", type=int, help="calls of each contender (default 5; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="64 rows, three rounds")
    parser.add_argument("--no-decode", action="store_true", help="encoders only")
    parser.add_argument("--ggml", type=Path, metavar="FILE", help="libggml-base.so to compare with")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too, dated")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an SVG of the encoders with importance")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    bench = Bench(options)
    rows = [row for row in tensor_types.BY_ID.values() if options.types is None or row.name in options.types]
    result: dict = {
        "schema": 1,
        **report.machine(),
        "columns": COLUMNS,
        "rounds": bench.rounds,
        "isas": options.isa,
        "ggml_measured": bench.ggml is not None,
        "encode": [],
        "decode": [],
    }
    show = (lambda line: None) if options.json else (lambda line: print(line, flush=True))
    for line in report.head(result):
        show(line)
    for row in rows:
        for weighted in (False, True) if row.importance != "ignored" else (False,):
            measured = bench.encoders(row, weighted)
            if measured:
                result["encode"].append(measured)
                for line in report.encoder_lines(measured, options.isa):
                    show(line)
    if not options.no_decode:
        for line in report.decoder_head(options.isa):
            show(line)
        for row in rows:
            if kernels.can_decode(row.id):
                result["decode"].append(bench.decoder(row))
                show(report.decoder_line(result["decode"][-1], options.isa))
    result["bars"] = report.bars(result)
    for line in report.bar_lines(result):
        show(line)
    if options.json:
        print(json.dumps(result, indent=1))
    if options.markdown:
        options.markdown.write_text(report.markdown(result), encoding="utf-8")
    if options.plot:
        options.plot.write_text(report.plot(result), encoding="utf-8")


if __name__ == "__main__":
    main()
