"""Rows about work that stops and goes on, and about work in parts."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from scale_rows import MIB, ROOT, Measure, Place, Row

KILLS, QUICK_KILLS, SEED = 30, 8, 20
TYPES = ("Q4_K_M", "IQ2_XS", "Q8_0")
MEMORY = 300 * MIB
PARTS, LIMIT = 16, 1.05
BETWEEN = 4  # parts between two whole runs
FAULTS, WORDS = 24, ("passed", "failed")
#: counts the slabs that are encoded; -c, so that the program itself stays as it is
COUNTING = """
import os
from quantcli.cli import main
from quantcli.encode import pipeline
original = pipeline.Encoder.encode
log = os.open(os.environ["SLABS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def encode(self, slab):
    made = original(self, slab)
    lines = "".join(f"{output} {slab.index} {slab.start}\\n" for output, one in enumerate(made) if one is not None)
    os.write(log, lines.encode())
    return made
pipeline.Encoder.encode = encode
main()
"""


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.gguf")):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def options(types: tuple[str, ...], matrix: Path, threads: int) -> list[str]:
    return [*(word for name in types for word in ("-t", name)), "--imatrix", str(matrix), "--threads", str(threads)]


def memory(place: Place) -> list[Row]:
    """The peak of three types from one read, and what the outputs and the folder weigh."""
    gigabytes = 1.0 if place.quick else 8.0
    folder, matrix = place.checkpoint(gigabytes)
    out = place.scratch / "three"
    run = place.quantcli("convert", str(folder), *options(TYPES, matrix, place.threads), "-o", f"{out}/", "--quiet")
    held = 2 * matrix.stat().st_size  # sums and the encoders' weights
    size = sum(path.stat().st_size for path in out.iterdir())
    shutil.rmtree(out)
    what = f"{gigabytes:g} GB checkpoint -> {' + '.join(TYPES)}, {place.threads} threads"
    return [
        (
            f"{what}: peak memory",
            f"<= {MEMORY // MIB} MiB + the importance matrix ({held / MIB:.0f} MiB)",
            f"{run.peak / MIB:.0f} MiB in {run.seconds:.0f} s, outputs {size / 1e9:.2f} GB",
            run.peak <= MEMORY + held,
        )
    ]


def kills(place: Place) -> list[Row]:
    """SIGKILL at random moments of one conversion, which is resumed each time."""
    count = QUICK_KILLS if place.quick else KILLS
    folder, matrix = place.checkpoint(0.4)
    command = ["convert", str(folder), *options(TYPES, matrix, place.threads), "--split-max-size", "100M", "--quiet"]
    start = time.perf_counter()
    place.quantcli(*command, "-o", "whole/")
    seconds = time.perf_counter() - start
    expected = digests(place.scratch / "whole")
    random_, log = random.Random(SEED), place.scratch / "slabs"
    done = rounds = 0
    while done < count:
        rounds += 1
        shutil.rmtree(place.scratch / "out", ignore_errors=True)
        done += _round(place, command, random_, seconds, log, count - done)
        if digests(place.scratch / "out") != expected:
            raise SystemExit(f"round {rounds} (seed {SEED}): other bytes")
    repeated, killed = _repeated(log)
    left = [name for name in os.listdir(place.scratch / "out") if name.startswith(".")]
    most = place.threads * len(TYPES)
    what = f"{count} kill -9 at random moments of {rounds} conversions with --resume"
    return [
        (f"{what}: sha256 of all files", "same as undisturbed", "the same", not left),
        (
            f"{what}: encodings of a slab for a file that were made again",
            f"<= {most} per kill (threads x files)",
            f"{repeated / max(killed, 1):.1f} per kill on average",
            repeated <= most * killed,
        ),
    ]


def _round(place: Place, command: list[str], random_: random.Random, seconds: float, log: Path, left: int) -> int:
    """Kill and resume one conversion until it is complete; returns the kills."""
    killed = 0
    while True:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLABS": str(log)}
        line = [sys.executable, "-c", COUNTING, *command, "-o", "out/", "--resume"]
        with subprocess.Popen(line, cwd=place.scratch, env=environment, stderr=subprocess.PIPE) as child:
            if killed < left:
                try:
                    child.wait(random_.uniform(0.3, 0.6 * seconds))
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
            said = child.stderr.read().decode() if child.stderr else ""
            status = child.wait()
        if status == -signal.SIGKILL:
            killed += 1
            with open(log, "a") as file:
                file.write("killed\n")
            continue
        if status:
            raise SystemExit(f"exit {status}: {said[-2000:]}")
        with open(log, "a") as file:
            file.write("complete\n")
        return killed


def _repeated(log: Path) -> tuple[int, int]:
    """(encodings that were made again, kills) of all conversions."""
    repeated = killed = 0
    seen: set[str] = set()
    for line in log.read_text().splitlines():
        if line == "complete":
            seen.clear()
        elif line == "killed":
            killed += 1
        else:
            repeated += line in seen
            seen.add(line)
    return repeated, killed


def parts(place: Place) -> list[Row]:
    """An array of sixteen parts one after the other, with whole runs between every four of them (a processor's speed
    changes within minutes; the median counts); then what assemble takes and finds."""
    gigabytes = 2.0 if place.quick else 8.0
    folder, matrix = place.checkpoint(gigabytes)
    given = ["convert", str(folder), *options(("Q4_K_M", "IQ2_XS"), matrix, place.threads), "--quiet"]
    given += ["--split-max-size", f"{round(gigabytes * 8)}M"]
    wholes, runs = [], []

    def whole() -> None:
        place.warm(folder)
        wholes.append(place.quantcli(*given, "-o", "one/", "--force"))

    for number in range(1, PARTS + 1):
        if number % BETWEEN == 1:
            whole()
            place.warm(folder)
        sums = place.scratch / "array" / f"part-{number}.sha256"
        (place.scratch / "array").mkdir(exist_ok=True)
        more = ["--part", f"{number}/{PARTS}", "--checksums", str(sums)]
        runs.append(place.quantcli(*given, *more, "-o", "array/"))
    whole()
    same = digests(place.scratch / "one") == digests(place.scratch / "array")
    total, longest = sum(run.processor for run in runs), max(run.seconds for run in runs)
    slowest = 1 + [run.seconds for run in runs].index(longest)
    wall, alone = sum(run.seconds for run in runs), statistics.median(run.processor for run in wholes)
    alone_wall = statistics.median(run.seconds for run in wholes)
    joined = place.quantcli("assemble", "array", "--checksums", "array/SHA256SUMS", "--quiet")
    for name in ("one", "array"):
        shutil.rmtree(place.scratch / name)
    what = f"a {PARTS}-part array of {gigabytes:g} GB -> Q4_K_M + IQ2_XS"
    return [
        (f"{what}: bytes", "those of one run", "the same" if same else "others", same),
        (
            f"{what}: sum of the parts, processor time",
            f"<= {LIMIT:g}x of one run",
            f"{total / alone:.3f}x ({total:.1f} s, {sum(run.system for run in runs):.1f} of them the system's; one run "
            f"before, between, behind them {_listed(run.processor for run in wholes)} s, the system's "
            f"{_listed(run.system for run in wholes)} s; wall {wall / alone_wall:.3f}x: {wall:.1f} s, "
            f"{_listed(run.seconds for run in wholes)} s)",
            total <= LIMIT * alone,
        ),
        (
            f"{what}: the longest part",
            "<= 1.25x of a sixteenth",
            f"{longest / (wall / PARTS):.2f}x ({longest:.1f} s, part {slowest})",
            longest <= 1.25 * wall / PARTS,
        ),
        (f"{what}: assemble", "all well", f"{joined.seconds:.1f} s", True),
    ]


def _listed(figures: Iterable[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in figures)


def faults(place: Place) -> list[Row]:
    """Every planted fault of tests/commands/test_parts.py."""
    wanted = ["tests/commands/test_parts.py", "-k", "every_planted_fault"]
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *wanted]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout
    passed, failed = (int(found[1]) if (found := re.search(rf"(\d+) {word}", said)) else 0 for word in WORDS)
    good = passed >= FAULTS and not failed
    return [("assemble finds each planted fault", f"each of {FAULTS}", f"{passed} of {passed + failed}", good)]


ROWS: dict[str, Measure] = {"memory": memory, "kills": kills, "parts": parts, "faults": faults}
