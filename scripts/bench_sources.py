#!/usr/bin/env python3
"""The bars of packed sources and of snap, as a table.

    python scripts/bench_sources.py [--gigabytes 2] [--runs 3] [--only PART]... [--build FOLDER] [--shared ../shared]

--gigabytes is the size of the FP8 checkpoint; its BF16 and F32 twins take two and four times as much disk. Times are
CPU seconds of whole commands on one thread, the least of --runs alternating runs, so that other work counts little.
--only takes a part of the table: packed, decoders, grids, fp8, nogrid. Parts whose oracles are missing are left out.
Of nogrid the bar is about the sample: where it says no, the encoder is the ordinary one, and whole commands differ by
more than that from run to run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import struct
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import packers
from helpers.oracles import as_stored
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.ggml import kernels, packing
from quantcli.ggml.tensor_types import BY_NAME, row_bytes
from quantcli.methods import snap
from quantcli.methods.snap import SEARCHED_LAST
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.gguf import open_gguf

PARTS = ("packed", "decoders", "grids", "fp8", "nogrid")
TILE = 128
WIDTH = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


def line(what: str, figure: str, bar: str = "", met: bool | None = None) -> None:
    mark = "" if met is None else "yes" if met else "NO"
    print(f"| {what} | {figure} | {bar} | {mark} |", flush=True)


def best(work: Callable[[], object], runs: int = 30) -> float:
    """The least seconds of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


# ---- decoders


def decoders() -> None:
    """Source bytes that one core decodes in a second, from and to the cache."""
    rng = numpy.random.default_rng(0)
    rows, columns, group = 64, 4096, 128
    for name in ("E4M3", "E5M2", "NIBBLES", "NIBBLES_HIGH", "SIGNED"):
        kind = getattr(packing, name)
        codes = rng.integers(0, 256, (rows, kind.row_bytes(columns)), numpy.uint8)
        scale = rng.normal(size=(rows, columns // group)).astype(numpy.float32)
        out = numpy.empty((rows, columns), numpy.float32)
        extra = {"NIBBLES": {"zero": scale}, "NIBBLES_HIGH": {"levels": scale[0, :16].copy()}}.get(name, {})
        work = partial(packing.unpack, kind, codes, columns, scale, group=group, out=out, **extra)
        seconds = best(work)
        same = numpy.array_equal(
            packing.unpack(kind, codes, columns, scale, group=group, isa="scalar", **extra), out, equal_nan=True
        )
        speed = codes.nbytes / seconds / 1e9
        what = {"NIBBLES": "int4 with zeros", "NIBBLES_HIGH": "nf4", "SIGNED": "int8"}.get(name, f"FP8 {name}")
        line(f"decode {what}, scalar the same: {same}", f"{speed:.1f} GB/s", ">= 2", speed >= 2 and same)
    fp4 = BY_NAME["NVFP4"]
    raw = rng.integers(0, 127, (rows, row_bytes(fp4, columns)), numpy.uint8)
    seconds = best(lambda: kernels.decode(fp4.id, raw, rows, columns, out=out))
    line("decode FP4 (NVFP4 blocks)", f"{raw.nbytes / seconds / 1e9:.1f} GB/s", ">= 2", raw.nbytes / seconds >= 2e9)
    words = rng.integers(0, 2**32, (512, 512), dtype=numpy.uint32)
    for name, turn in (("GPTQ", packing.turn_words), ("AWQ", packing.turn_nibbles)):
        seconds = best(lambda t=turn: t(words))
        speed = words.nbytes / seconds / 1e9
        line(f"turn {name}'s words to rows", f"{speed:.1f} GB/s", ">= 2", speed >= 2)


# ---- snap


def carried(name: str, values: numpy.ndarray, search: str, trivial: bool) -> numpy.ndarray:
    """The blocks of weights on a grid, as a conversion makes them."""
    kind = BY_NAME[name]
    out = numpy.empty((len(values), row_bytes(kind, values.shape[1])), numpy.uint8)
    if trivial:
        kernels.encode(kind.id, values, search=search, out=out)
    packing.snap(kind.id, values, out, encoded=trivial)
    return out


def grids() -> None:
    """Weights on a grid, rounded to bf16: what comes back, and the time beside the plain search."""
    rng = numpy.random.default_rng(1)
    rows, columns = 64, 2048
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0", "Q2_0", "MXFP4", "NVFP4", "Q8_0"):
        kind = BY_NAME[name]
        blocks = kernels.encode(kind.id, (rng.normal(size=(rows, columns)) * 0.02).astype(numpy.float32))
        if name in ("Q4_0", "Q5_0"):
            view = blocks.reshape(-1, kind.bytes)
            view[:, 1] ^= (rng.integers(0, 2, len(view)) << 7).astype(numpy.uint8)
        values = packers.rounded(kernels.decode(kind.id, blocks, rows, columns), "BF16")
        search = "best" if kernels.can_encode(kind.id, "best") else "ggml"
        plain = best(lambda k=kind, v=values, s=search: kernels.encode(k.id, v, search=s), 5)
        work = partial(carried, name, values, search, name in SEARCHED_LAST)
        found = packers.rounded(kernels.decode(kind.id, work(), rows, columns), "BF16")
        seconds, lost = best(work, 5), int((found != values).sum())
        line(f"snap {name}: values of {values.size:,} that differ", str(lost), "0", lost == 0)
        if name == "Q8_0":  # rounding to it is no search: the next type takes several times as long
            line(f"snap {name}, where nothing is searched", f"{seconds / values.size * 1e9:.1f} ns a weight")
            continue
        line(f"snap {name}: time beside the plain search", f"{seconds / plain:.2f}x", "<= 3", seconds <= 3 * plain)


# ---- checkpoints


def fp8_codes(values: numpy.ndarray) -> numpy.ndarray:
    """Nearest E4M3 codes of values up to 448."""
    half = (values / 256).astype(numpy.float16).view(numpy.uint16)
    rest = half & 0x7FFF
    codes = numpy.minimum((rest + 0x3F + ((rest >> 7) & 1)) >> 7, 0x7E)
    return (codes | (half >> 8) & 0x80).astype(numpy.uint8)


def as_fp8(values: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """(codes, scales of tiles, what they mean) of a matrix."""
    rows, columns = values.shape
    down, across = -(-rows // TILE), -(-columns // TILE)
    padded = numpy.zeros((down * TILE, across * TILE), numpy.float32)
    padded[:rows, :columns] = values
    tiles = numpy.abs(padded).reshape(down, TILE, across, TILE).max(axis=(1, 3)) / numpy.float32(448)
    scales = numpy.maximum(tiles, numpy.float32(1e-12))
    spread = packers.spread(scales, (rows, columns), (TILE, TILE))
    codes = fp8_codes(values / spread)
    return codes, scales, packers.e4m3(codes) * spread


class Writer:
    """A safetensors file whose header is written before the data is there."""

    def __init__(self, folder: Path, shapes: dict[str, tuple[str, list[int]]]) -> None:
        header, position = {}, 0
        for name, (dtype, shape) in shapes.items():
            size = int(numpy.prod(shape)) * WIDTH[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
            position += size
        text = json.dumps(header).encode()
        self.file = (folder / "model.safetensors").open("wb")
        self.file.write(struct.pack("<Q", len(text)) + text)

    def put(self, data: bytes) -> None:
        self.file.write(data)


def twins(build: Path, gigabytes: float) -> dict[str, Path]:
    """An FP8 checkpoint and the same weights in BF16 and F32; made once."""
    folders = {kind: build / f"{kind}-{gigabytes:g}" for kind in ("fp8", "bf16", "f32")}
    if all((folder / "done").exists() for folder in folders.values()):
        return folders
    source = build / f"source-{gigabytes:g}"
    command = [sys.executable, str(ROOT / "scripts/make_checkpoint.py"), str(source), "--gigabytes", str(2 * gigabytes)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if path.suffix != ".safetensors" and path.is_file() and "index" not in path.name:
                (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [TILE, TILE]}
    (folders["fp8"] / "config.json").write_text(json.dumps(config))
    with Checkpoint(source) as checkpoint:
        _write_twins(checkpoint, folders)
    for folder in folders.values():
        (folder / "done").touch()
    subprocess.run(["rm", "-rf", str(source)], check=True)
    return folders


def _write_twins(checkpoint: Checkpoint, folders: dict[str, Path]) -> None:
    tensors = sorted(checkpoint.tensors.values(), key=lambda tensor: tensor.name)
    packed = {tensor.name for tensor in tensors if "_proj" in tensor.name}
    shapes: dict[str, dict[str, tuple[str, list[int]]]] = {"fp8": {}, "bf16": {}, "f32": {}}
    for tensor in tensors:
        shape = list(tensor.shape)
        inside = tensor.name in packed
        shapes["fp8"][tensor.name] = ("F8_E4M3" if inside else "BF16", shape)
        shapes["bf16"][tensor.name], shapes["f32"][tensor.name] = ("BF16", shape), ("F32" if inside else "BF16", shape)
        if inside:
            shapes["fp8"][f"{tensor.name}_scale_inv"] = ("F32", [-(-side // TILE) for side in shape])
    writers = {kind: Writer(folder, shapes[kind]) for kind, folder in folders.items()}
    for tensor in tensors:
        values = tensor.read_rows(0, tensor.rows)
        plain = as_stored(values, "BF16").tobytes()
        if tensor.name not in packed:
            for writer in writers.values():
                writer.put(plain)
            continue
        codes, scales, exact = as_fp8(values)
        writers["fp8"].put(codes.tobytes() + scales.tobytes())
        writers["bf16"].put(as_stored(exact, "BF16").tobytes())
        writers["f32"].put(exact.tobytes())
    for writer in writers.values():
        writer.file.close()


class Run(NamedTuple):
    """What a conversion on one thread took: seconds of the processor and of the clock, and the peak of its MB."""

    seconds: float
    clock: float
    peak: float


def run(source: Path, target: Path, *more: str, kind: str = "Q4_K_M") -> Run:
    """A conversion on one thread."""
    program = [sys.executable, "-m", "quantcli", "convert", str(source), "-t", kind, "-o", str(target), "--force"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # what the program prints is no row of this table
    start = time.perf_counter()
    program += ["--threads", "1", "--quiet", *more]
    with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, f"{source} could not be converted"
    clock = time.perf_counter() - start
    return Run(usage.ru_utime + usage.ru_stime, clock, usage.ru_maxrss / 1024)


def digests(path: Path) -> dict[str, str]:
    with open_gguf(path) as model:
        return {t.name: hashlib.sha256(t.reader.read_raw(0, t.rows)).hexdigest() for t in model.tensors}


def fp8(build: Path, gigabytes: float, runs: int) -> None:
    """FP8 beside BF16: time, bytes, memory."""
    folders = twins(build, gigabytes)
    out = {kind: build / f"{kind}.gguf" for kind in folders}
    times: dict[str, list[Run]] = {}
    for _ in range(runs):
        for kind in ("bf16", "fp8"):
            times.setdefault(kind, []).append(run(folders[kind], out[kind]))
    least = {kind: min(one.seconds for one in rows) for kind, rows in times.items()}
    memory = {kind: max(one.peak for one in rows) for kind, rows in times.items()}
    ratio = least["fp8"] / least["bf16"]
    what = f"FP8 ({gigabytes:g} GB) -> Q4_K_M beside BF16"
    line(what, f"{least['fp8']:.1f} s, {least['bf16']:.1f} s: {ratio:.3f}x", "<= 1.02", ratio <= 1.02)
    run(folders["f32"], out["f32"])
    same = digests(out["fp8"]) == digests(out["f32"])
    line("its tensors and those of the exact float32 weights", "equal" if same else "differ", "equal", same)
    peaks = f"{memory['fp8']:.0f} MB, BF16 {memory['bf16']:.0f} MB"
    line("memory of FP8 -> Q4_K_M", peaks, "as BF16", memory["fp8"] <= memory["bf16"] * 1.05 + 16)


def off_grid(build: Path, gigabytes: float, runs: int) -> None:
    """What snap costs where nothing lies on a grid: a type that is searched, and one that is not."""
    source = build / f"plain-{gigabytes:g}"
    if not source.exists():
        command = [sys.executable, str(ROOT / "scripts/make_checkpoint.py"), str(source), "--gigabytes", str(gigabytes)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for kind in ("Q4_0", "Q8_0"):
        rows: dict[str, list[Run]] = {"never": [], "auto": []}
        for number in range(runs):
            for mode in sorted(rows, reverse=number % 2 == 0):
                rows[mode].append(run(source, build / "x.gguf", "--snap", mode, kind=kind))
        costs = {
            "least": ratio(rows, lambda one: one.seconds, min),
            "median": ratio(rows, lambda one: one.seconds, statistics.median),
            "median of the clock": ratio(rows, lambda one: one.clock, statistics.median),
        }
        what = f"snap where nothing lies on a grid ({kind}, {min(one.seconds for one in rows['never']):.2f} s)"
        shown = ", ".join(f"{name} {cost:.3f}x" for name, cost in costs.items())
        line(what, shown)
        share = statistics.median(sampled(source, build / "x.gguf", kind) for _ in range(runs))
        line(f"of it the sample, which is all that is added ({kind})", f"{1 + share:.4f}x", "<= 1.02", share <= 0.02)


def sampled(source: Path, target: Path, kind: str) -> float:
    """The processor's time of the sample over that of the rest of a conversion on one thread, of one run.

    Where the sample says no, the encoder is the ordinary one: nothing else is added.
    """
    spent, looks = 0.0, snap.Snapping._tries

    def timed(*given: Any) -> bool:
        nonlocal spent
        start = time.thread_time()
        tries = looks(*given)
        spent += time.thread_time() - start
        assert not tries, "something lies on a grid"
        return tries

    with unittest.mock.patch.object(snap.Snapping, "_tries", timed):
        start = time.process_time()
        convert.run(convert_request(source=source, types=(kind,), output=target, threads=1, force=True))
        return spent / (time.process_time() - start - spent)


def ratio(rows: dict[str, list[Run]], figure: Callable[[Run], float], of: Callable[[Iterable[float]], float]) -> float:
    """What snapping costs, by one figure of the runs."""
    return of(map(figure, rows["auto"])) / of(map(figure, rows["never"]))


def packed(shared: Path) -> None:
    """The last line of the oracle's own check."""
    check = shared / "packed" / "check.py"
    if check.is_file():
        command = [sys.executable, str(check), "--quantcli", f"{sys.executable} -m quantcli"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        said = done.stdout.strip().splitlines()[-1]
        line("packed/check.py", said, "20 of 20", said.startswith("20 of 20"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part of the table; repeatable")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "sources")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    given = parser.parse_args()
    given.build.mkdir(parents=True, exist_ok=True)
    print("| what | figure | bar | met |\n|---|---|---|---|")
    work: dict[str, Callable[[], None]] = {
        "packed": lambda: packed(given.shared),
        "decoders": decoders,
        "grids": grids,
        "fp8": lambda: fp8(given.build, given.gigabytes, given.runs),
        "nogrid": lambda: off_grid(given.build, given.gigabytes, given.runs),
    }
    for part in given.only or PARTS:
        work[part]()


if __name__ == "__main__":
    main()
