#!/usr/bin/env python3
"""Every bar of trust in one table: broken inputs, mutants, kills, searches, sanitizers. `make trust` runs it.

    python scripts/trust.py [--quick] [--only NAME]...

The whole takes an hour or two on two cores, `--quick` (fewer mutants and kills, the same bars) a few minutes. Exit 1
where a bar is missed. What needs the oracle folder says so where it is not there, and counts as missed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

from helpers.bars import Row, print_rows

SHARED = Path(os.environ.get("QUANTCLI_SHARED", ROOT.parent / "shared"))
MUTANTS, QUICK_MUTANTS = 100_000, 1_000

Measure = Callable[[bool], list[Row]]  # told whether to be quick


def checkpoints(quick: bool) -> list[Row]:
    """The checkpoints of public reports, by the script that comes with them; all of them also when ``quick``."""
    what, bar = "checkpoints of reports that convert as llama.cpp's converter writes them", "all"
    check, inputs = SHARED / "arch" / "check.py", SHARED / "reports" / "checkpoints"
    if not check.exists() or not inputs.is_dir():
        return [(what, bar, f"{inputs} is not here", False)]
    program = f"{sys.executable} -m quantcli"
    done = _run([sys.executable, str(check), "--root", str(inputs), "--quantcli", program])
    passed, failed = (re.findall(rf"^{word}\b.*", done.stdout, re.MULTILINE) for word in ("PASS", "FAIL"))
    for line in failed:
        print(f"  {line}", file=sys.stderr)
    return [(what, bar, f"{len(passed)} of {len(passed) + len(failed)}", done.returncode == 0 and bool(passed))]


def mutants(quick: bool) -> list[Row]:
    """New mutants of every kind of file, in this process's children."""
    count, seed = QUICK_MUTANTS if quick else MUTANTS, int(time.time())
    done = _run([sys.executable, "scripts/fuzz.py", "--mutants", str(count), "--seed", str(seed)])
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", file=sys.stderr)
    found = re.search(r"(\d+) mutants in \d+ s: (\d+) ended badly", done.stdout)
    what = f"{count:,} mutants of GGUF, imatrix, safetensors, tokenizers, configs, runner, seed {seed}"
    bar = "0 exceptions not quantcli's, 0 signals, 0 NaN with exit 0, 0 over 20 s, each within 1 GiB"
    if found is None:
        return [(what, bar, f"did not end: {(done.stderr or done.stdout)[-200:]}", False)]
    enough = int(found[1]) >= count
    return [(what, bar, f"{found[2]} of {int(found[1]):,}", enough and found[2] == "0" and done.returncode == 0)]


def sanitizers(quick: bool) -> list[Row]:
    """The kernels and the runner under ASan, UBSan and TSan."""
    rounds = ["SANITIZE_ROUNDS=3", "RUNNER_ROUNDS=1"] if quick else []
    done = _run(["make", "--no-print-directory", "test-sanitize", *rounds])
    last = (done.stdout + done.stderr).strip().splitlines() or [""]
    measured = "clean" if done.returncode == 0 else f"exit {done.returncode}: {last[-1]}"
    return [("ASan, UBSan, TSan over encoders, decoders, runner with mutants", "clean", measured, not done.returncode)]


def killed(quick: bool) -> list[Row]:
    """Conversions that are killed, and what they leave."""
    import trust_kills  # brings the program, which the other rows run as a child

    return trust_kills.measure(quick)


def script(name: str, what: str, bar: str, quick_options: Sequence[str] = ()) -> Measure:
    """The row of scripts/``name``.py: its exit status says whether the bar is met, its last line what was measured."""

    def measure(quick: bool) -> list[Row]:
        if not (ROOT / "scripts" / f"{name}.py").exists():
            return [(what, bar, f"scripts/{name}.py is not here", False)]
        done = _run([sys.executable, f"scripts/{name}.py", *(quick_options if quick else ())])
        lines = (done.stdout if done.returncode in (0, 1) else done.stderr).strip().splitlines() or ["nothing printed"]
        if done.returncode:
            print("".join(f"  {line}\n" for line in lines), end="", file=sys.stderr)
        return [(what, bar, lines[-1].replace("|", "/"), done.returncode == 0)]

    return measure


ROWS: dict[str, Measure] = {
    "checkpoints": checkpoints,
    "runner": script("trust_runner", "runner files x 5 commands", "0 unexpected, 0 NaN with exit 0, < 300 MB, < 10 s"),
    "mutants": mutants,
    "kills": killed,
    "best": script("trust_best", "`best` over `ggml`, scalar types", "<= 1.0001 in all", ("--cases", "5000")),
    "sanitizers": sanitizers,
}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def machine() -> str:
    """The processor, the number of cores and the day."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, {datetime.date.today()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer mutants, kills and cases: a few minutes")
    parser.add_argument("--only", action="append", choices=ROWS, help="only these rows; repeatable")
    arguments = parser.parse_args()
    print(f"{machine()}{', quick' if arguments.quick else ''}\n")
    start = time.monotonic()
    chosen = [name for name in ROWS if name in (arguments.only or ROWS)]
    good = print_rows((row for name in chosen for row in ROWS[name](arguments.quick)), head=True)
    print(f"\n{time.monotonic() - start:.0f} s")
    sys.exit(not good)


if __name__ == "__main__":
    main()
