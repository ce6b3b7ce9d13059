#!/usr/bin/env python3
"""Files whose metadata contradict their tensors, through every command that reads a model: a bar a line.

    python scripts/trust_runner.py [FOLDER]

FOLDER (default: ../shared/reports/runner) holds GGUF files. Every command ends in one of quantcli's own errors or in a
finite result, in bounded memory and time. Exit 1 where a bar is missed; the runs that missed it are named.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT.parent / "shared" / "reports" / "runner"
TEXT = "Once upon a time there was a model that believed whatever its metadata said. " * 12
MOST_SECONDS, MOST_MEGABYTES, PATIENCE = 10.0, 300.0, 180.0
COMMANDS: dict[str, Callable[[str, str, str], list[str]]] = {
    "perplexity": lambda model, text, out: [model, "-f", text, "-c", "32", "--chunks", "2"],
    "compare": lambda model, text, out: [model, model, "-f", text, "-c", "32", "--chunks", "2"],
    "generate": lambda model, text, out: [model, "-p", "Once", "-n", "8"],
    "embed": lambda model, text, out: [model, "-f", text, "--truncate"],
    "imatrix": lambda model, text, out: [model, "-f", text, "-c", "32", "--chunks", "2", "-o", out, "--force"],
    "inspect": lambda model, text, out: [model],
}


#: Results that are null where there is nothing to say; null anywhere else is a figure that JSON cannot write.
NO_FIGURES = {"labels"}


def has_null(value: object) -> bool:
    """Whether a figure of a result (nested mappings and lists) is null."""
    if isinstance(value, dict):
        return any(has_null(item) for key, item in value.items() if key not in NO_FIGURES)
    return any(has_null(item) for item in value) if isinstance(value, list) else value is None


@dataclass(frozen=True)
class Run:
    """One command on one file: its exit status (negative: a signal), what it printed, seconds of processor time and
    the megabytes that it held at most."""

    name: str
    command: str
    status: int
    printed: str
    seconds: float
    megabytes: float

    @property
    def unexpected(self) -> bool:
        return "unexpected" in self.printed or "Traceback" in self.printed or self.status not in (0, 1, 2)

    @property
    def not_a_number(self) -> bool:
        """Exit 0 with figures that are none: NaN, or the null that stands for it."""
        if self.status or self.command == "inspect":
            return False
        result = next((line for line in self.printed.splitlines() if line.startswith("{")), "")
        return any(word in result for word in ("NaN", "Infinity")) or has_null(json.loads(result))


def run(name: str, command: str, arguments: list[str]) -> Run:
    """Run `quantcli COMMAND ARGUMENTS --json` as a child of its own."""
    line = [sys.executable, "-m", "quantcli", command, *arguments, "--json"]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        stop, status, usage = time.monotonic() + PATIENCE, 0, None
        while usage is None:
            done, status, found = os.wait4(child.pid, os.WNOHANG)
            if done:
                usage = found
            elif time.monotonic() > stop:
                os.kill(child.pid, signal.SIGKILL)  # Popen.kill would look, and take the status away
            else:
                time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    seconds = usage.ru_utime + usage.ru_stime
    return Run(name, command, child.returncode, printed, seconds, usage.ru_maxrss / unit)


def runs(files: Iterable[Path]) -> Iterator[Run]:
    """Every command on every file."""
    with tempfile.TemporaryDirectory(prefix="quantcli-trust-") as work:
        text = Path(work) / "text.txt"
        text.write_text(TEXT)
        for path in files:
            for command, arguments in COMMANDS.items():
                yield run(path.name, command, arguments(str(path), str(text), str(Path(work) / "made.gguf")))


def bars(found: list[Run]) -> Iterator[tuple[str, list[Run]]]:
    """(what the bar says, the runs that miss it)."""
    yield "0 unexpected errors, signals or endless runs", [one for one in found if one.unexpected]
    yield "0 figures that are NaN with exit 0", [one for one in found if one.not_a_number]
    yield f"every run < {MOST_MEGABYTES:g} MB", [one for one in found if one.megabytes >= MOST_MEGABYTES]
    yield f"every run < {MOST_SECONDS:g} s of processor time", [one for one in found if one.seconds >= MOST_SECONDS]


def main(folder: Path = FOLDER) -> int:
    """Print the bars; the number of those that are missed."""
    files = sorted(folder.glob("*.gguf"))
    if not files:
        print(f"runner: no files in {folder}")
        return 1
    found, missed = list(runs(files)), 0
    for text, bad in bars(found):
        print(f"runner: {text}: {'ok' if not bad else 'MISSED'} ({len(bad)} of {len(found)})")
        missed += bool(bad)
        for one in bad[:10]:
            print(f"  {one.name} {one.command}: exit {one.status}, {one.seconds:.1f} s, {one.megabytes:.0f} MB")
    errors, most = sum(one.status == 1 for one in found), max(one.megabytes for one in found)
    slowest = max(one.seconds for one in found)
    print(f"runner: {errors} of {len(found)} runs end in an error; at most {most:.0f} MB, {slowest:.1f} s")
    return missed


if __name__ == "__main__":
    sys.exit(bool(main(*map(Path, sys.argv[1:]))))
