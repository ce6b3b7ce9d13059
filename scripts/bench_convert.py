#!/usr/bin/env python3
"""Time and memory of whole conversions, beside llama.cpp's quantizer where llama-cpp-python is installed.

    python scripts/bench_convert.py [--quick] [--threads 2] [--runs 3] [--peer-python FILE] [--output docs/convert.md]
    python scripts/bench_convert.py --only together    # three types in one command against three commands

Writes checkpoints of 2 and 8 GB (make_checkpoint.py) into a scratch folder and removes them at the end. Ours is the
wall time of the whole command, from the checkpoint to the synced file; llama.cpp's is that of the call
llama_model_quantize alone, on the BF16 GGUF of the same weights with the same importance matrix. Runs alternate, dirty
pages are written back before each, medians are compared. Memory is the peak of the process's resident set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
FILE_TYPE = 15  # Q4_K_M in llama.cpp
THREE = ("Q8_0", "Q4_0", "BF16")
# At least 5x faster than the peer, at most 0.72x of three commands, 256 MiB and three slabs per thread.
SPEED_BAR, TOGETHER_BAR, MEMORY_BAR = 5.0, 0.72, 256 * MIB


@dataclass(frozen=True, slots=True)
class Run:
    """Wall time, processor time and peak resident set (bytes) of one process."""

    seconds: float
    processor: float
    peak: int


@dataclass
class Bench:
    """Where things lie, how they are run, and the rows of the table."""

    scratch: Path
    threads: int
    runs: int
    peer: str | None  # a Python that imports llama_cpp
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, bar: str = "", met: bool | None = None) -> None:
        self.rows.append((what, figure, bar, "" if met is None else "met" if met else "**missed**"))
        print(f"  {what}: {figure}", file=sys.stderr)

    def checkpoint(self, name: str, gigabytes: float, shape: Sequence[str]) -> tuple[Path, Path]:
        """A checkpoint folder and its importance matrix."""
        folder, matrix = self.scratch / name, self.scratch / f"{name}.imatrix.gguf"
        process(
            [
                sys.executable,
                str(ROOT / "scripts" / "make_checkpoint.py"),
                str(folder),
                *shape,
                "--gigabytes",
                str(gigabytes),
                "--imatrix",
                str(matrix),
            ]
        )
        return folder, matrix

    def convert(self, source: Path, types: Sequence[str], *more: str) -> Run:
        """`quantcli convert` of ``source`` into the scratch folder."""
        command = [
            sys.executable,
            "-m",
            "quantcli",
            "convert",
            str(source),
            "--quiet",
            "--force",
            "--threads",
            str(self.threads),
            *more,
            "-o",
        ]
        command.append(str(self.output(source, types[0]) if len(types) == 1 else self.scratch))
        for name in types:
            command += ["-t", name]
        return process(command)

    def output(self, source: Path, name: str) -> Path:
        return self.scratch / f"{source.name}-{name}.gguf"

    def quantize(self, source: Path, matrix: Path, target: Path) -> Run:
        """The peer's quantizer in a process of its own; the seconds are those of the call alone."""
        assert self.peer
        script = [self.peer, __file__, "--peer-child", str(source), str(matrix), str(target), str(self.threads)]
        os.sync()
        done = subprocess.run(
            script,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        return Run(*json.loads(done.stdout.splitlines()[-1]))


def process(command: Sequence[str]) -> Run:
    """Run a command to its end. This process stays small: its size at the fork would count as the child's peak."""
    os.sync()
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors.decode(errors='replace')}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def median(times: Sequence[Run], what: str = "seconds") -> float:
    return statistics.median(getattr(run, what) for run in times)


def alternating(count: int, *actions: Callable[[], Run]) -> list[list[Run]]:
    """``count`` rounds of all actions; the runs of each."""
    rounds = [[action() for action in actions] for _ in range(count)]
    return [list(column) for column in zip(*rounds, strict=True)]


# ---- what is measured


def against_peer(bench: Bench, source: Path, matrix: Path) -> None:
    """Checkpoint to Q4_K_M with importance, both searches, against the peer's quantizer."""
    actions = [
        lambda: bench.convert(source, ["Q4_K_M"], "--imatrix", str(matrix), "--search", "ggml"),
        lambda: bench.convert(source, ["Q4_K_M"], "--imatrix", str(matrix)),
    ]
    base, theirs = bench.output(source, "BF16"), bench.scratch / "peer.gguf"
    if bench.peer:
        bench.convert(source, ["BF16"])
        actions.append(lambda: bench.quantize(base, matrix, theirs))
    times = alternating(bench.runs, *actions)
    peer = median(times[2]) if bench.peer else None
    for runs, search in zip(times, ("--search ggml", "default search"), strict=False):
        text = f"{median(runs):.2f} s"
        if peer is not None:
            ours, theirs_used = median(runs, "processor"), median(times[2], "processor")
            text += (
                f", llama.cpp {peer:.2f} s: {peer / median(runs):.2f}x "
                f"(processor time {ours:.1f} s, {theirs_used:.1f} s: {theirs_used / ours:.2f}x)"
            )
        bench.add(
            f"checkpoint -> Q4_K_M with imatrix, {search}",
            text,
            f">= {SPEED_BAR:g}x",
            None if peer is None else peer / median(runs) >= SPEED_BAR,
        )
    if bench.peer:
        bench.convert(source, ["Q4_K_M"], "--imatrix", str(matrix), "--search", "ggml")
        equal, count = same_tensors(bench.output(source, "Q4_K_M"), theirs)
        bench.add("tensors whose bytes are llama.cpp's (--search ggml)", f"{equal} of {count}", "all", equal == count)
        base.unlink()
        theirs.unlink()


def same_tensors(ours: Path, theirs: Path) -> tuple[int, int]:
    """(tensors with the same name, type and bytes in both files, tensors of ours)."""
    code = """if True:
        import json, sys
        from quantcli.container import read_header
        left, right = map(read_header, sys.argv[1:3])
        equal = 0
        with open(left.path, "rb") as a, open(right.path, "rb") as b:
            for info in left.tensors:
                other = right.by_name.get(info.name)
                if other is None or (other.type_id, other.bytes) != (info.type_id, info.bytes):
                    continue
                a.seek(left.data_start + info.offset), b.seek(right.data_start + other.offset)
                equal += a.read(info.bytes) == b.read(info.bytes)
        print(json.dumps([equal, len(left.tensors)]))"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ours), str(theirs)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    equal, count = json.loads(done.stdout)
    return equal, count


def together(bench: Bench, source: Path) -> None:
    """Three types in one command against three commands."""

    def three() -> Run:
        runs = [bench.convert(source, [name]) for name in THREE]
        return Run(sum(run.seconds for run in runs), sum(run.processor for run in runs), max(run.peak for run in runs))

    one, several = alternating(bench.runs, lambda: bench.convert(source, THREE), three)
    ratio = median(one) / median(several)
    used = [median(runs, "processor") for runs in (one, several)]
    bench.add(
        f"{', '.join(THREE)} in one command",
        f"{median(one):.2f} s, three commands {median(several):.2f} s: {ratio:.2f}x "
        f"(processor time {used[0]:.1f} s, {used[1]:.1f} s: {used[0] / used[1]:.2f}x)",
        f"<= {TOGETHER_BAR:g}x",
        ratio <= TOGETHER_BAR,
    )


def memory(bench: Bench, source: Path, matrix: Path, size: float) -> int:
    """Peak of one conversion."""
    run = bench.convert(source, ["Q4_K_M"], "--imatrix", str(matrix))
    bar = MEMORY_BAR + 3 * slab_bytes() * bench.threads
    bench.add(
        f"peak resident memory, {size:g} GB -> Q4_K_M with imatrix",
        f"{run.peak / MIB:.0f} MiB",
        f"<= {bar / MIB:.0f} MiB",
        run.peak <= bar,
    )
    return run.peak


def slab_bytes() -> int:
    """Bytes of a slab of float32 rows, without importing numpy here (see `process`)."""
    code = "from quantcli import encode; print(4 * encode.SLAB_WEIGHTS)"
    return int(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def floor(bench: Bench, source: Path) -> None:
    """What any program pays for this output: reading the source, hashing and syncing the file."""
    import hashlib

    output, copy = bench.output(source, "Q4_K_M"), bench.scratch / "floor.bin"
    start = time.perf_counter()
    for path in source.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.read(MIB):
                pass
    read, start = time.perf_counter() - start, time.perf_counter()
    digest, pieces = hashlib.sha256(), 0
    with open(output, "rb") as file:
        while piece := file.read(MIB):
            digest.update(piece)
            pieces += 1
    hashed = time.perf_counter() - start
    os.sync()
    start, piece = time.perf_counter(), bytes(MIB)
    with open(copy, "wb", buffering=0) as file:
        for _ in range(pieces):
            file.write(piece)
        os.fsync(file.fileno())
    written = time.perf_counter() - start
    copy.unlink()
    bench.add(
        "floor of that conversion: reading; sha256; writing and fsync", f"{read:.2f} s; {hashed:.2f} s; {written:.2f} s"
    )


# ---- the peer


def peer_child(source: str, matrix: str, target: str, threads: str) -> None:
    """Call llama_model_quantize once; prints what it took as the fields of `Run`."""
    import ctypes
    import resource

    import llama_cpp

    from quantcli.statistics import imatrix

    entries = imatrix.read(matrix).entries
    data = (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))()
    for row, (name, values) in zip(data, entries.items(), strict=False):
        row.name, row.size = name.encode(), values.size
        row.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype, settings.imatrix = int(threads), FILE_TYPE, data
    start, used = time.perf_counter(), time.process_time()
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings))
    seconds, used = time.perf_counter() - start, time.process_time() - used
    if status:
        raise SystemExit(f"llama_model_quantize failed: {status}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps([seconds, used, peak]))


def peer_python(given: str | None) -> str | None:
    """A Python that imports llama_cpp: the given one, QUANTCLI_PEER_PYTHON, this one, or None."""
    for candidate in (given, os.environ.get("QUANTCLI_PEER_PYTHON"), sys.executable):
        if not candidate:
            continue
        found = shutil.which(candidate)
        if found and not subprocess.run([found, "-c", "import llama_cpp, numpy"], capture_output=True).returncode:
            return found
        if candidate == given:
            raise SystemExit(f"--peer-python {given}: it does not import llama_cpp and numpy")
    return None


# ---- the report


def machine() -> str:
    """CPU and cores of this machine."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def report(bench: Bench, command: str) -> str:
    """The Markdown table with what is needed to repeat it."""
    peer = (
        "no llama.cpp here"
        if bench.peer is None
        else "llama.cpp: "
        + subprocess.run(
            [bench.peer, "-c", "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__)"],
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()
    )
    lines = [
        f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}; {bench.threads} threads, "
        f"median of {bench.runs}; {peer}.",
        "",
        f"`{command}`",
        "",
        "| what | measured | bar | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in bench.rows]
    return "\n".join(lines) + "\n"


def measure(bench: Bench, sizes: tuple[float, float], shape: Sequence[str]) -> None:
    """All rows; the larger checkpoint exists only while its memory is measured."""
    small, matrix = bench.checkpoint("small", sizes[0], shape)
    peak = memory(bench, small, matrix, sizes[0])
    against_peer(bench, small, matrix)
    floor(bench, small)
    together(bench, small)
    shutil.rmtree(small)
    for path in bench.scratch.glob("*.gguf"):
        path.unlink()
    large, matrix = bench.checkpoint("large", sizes[1], shape)
    more = memory(bench, large, matrix, sizes[1]) - peak
    bench.add(
        "growth of the peak between the two sizes", f"{more / MIB:+.0f} MiB", "0 (within 16 MiB)", more < 16 * MIB
    )


def main() -> None:
    if sys.argv[1:2] == ["--peer-child"]:
        peer_child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="0.2 and 0.6 GB instead of 2 and 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", help="a Python in which llama_cpp is installed (default: this one)")
    parser.add_argument("--scratch", type=Path, help="where the checkpoints go; 14 GB (default: the temporary folder)")
    parser.add_argument("--only", choices=["together"], help="one row instead of all")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    command = shlex.join(["python", "scripts/bench_convert.py", *sys.argv[1:]])
    sizes, shape = ((0.2, 0.6), ("--columns", "1024")) if given.quick else ((2.0, 8.0), ())
    with tempfile.TemporaryDirectory(prefix="quantcli-bench-", dir=given.scratch) as folder:
        bench = Bench(Path(folder), given.threads, given.runs, peer_python(given.peer_python))
        if given.only is None:
            measure(bench, sizes, shape)
        else:
            together(bench, bench.checkpoint("small", sizes[0], shape)[0])
    text = report(bench, command)
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
