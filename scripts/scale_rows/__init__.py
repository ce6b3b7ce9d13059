"""Rows of bench_scale.py: one file per subject, each with a table ``ROWS``: name -> function of a `Place`.

Nothing here imports numpy: the peak of a child's memory counts from what its parent held when it was started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Row: TypeAlias = tuple[str, str, str, bool]  # what, bar, measured, met
ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """A process that has ended: wall and processor seconds (``system``: those of them that the system took), peak
    resident bytes, what it printed."""

    seconds: float
    processor: float
    peak: int
    status: int
    output: str
    said: str
    system: float


@dataclass(frozen=True)
class Place:
    """Where the rows work. ``scratch``: an empty folder of their own, removed in the end."""

    scratch: Path
    quick: bool = False
    threads: int = 2

    def checkpoint(self, gigabytes: float) -> tuple[Path, Path]:
        """A Llama-shaped checkpoint of this size, made once, and an importance matrix that fits."""
        folder = self.scratch / f"llama-{gigabytes:g}gb"
        matrix = self.scratch / f"{folder.name}.imatrix.gguf"
        if not matrix.exists():
            size = ["--gigabytes", str(gigabytes), "--imatrix", str(matrix)]
            shape = ["--columns", "1024"] if gigabytes < 1 else []
            self.script("make_checkpoint.py", str(folder), *shape, *size)
        return folder, matrix

    def warm(self, folder: Path) -> None:
        """Read the weights in ``folder`` and bring what is unwritten to the disk, so that what is measured next finds
        the system's cache as what is compared with it does: some systems take pages away that nobody has read for a
        while, and the disk's speed would be compared."""
        os.sync()
        block = bytearray(8 * MIB)
        for path in sorted(folder.glob("*.safetensors")):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(block):
                    pass

    def script(self, name: str, *arguments: str) -> Run:
        """Run scripts/``name``. Raises SystemExit where it fails."""
        return self.succeed([sys.executable, str(ROOT / "scripts" / name), *arguments])

    def quantcli(self, *arguments: str, more: Mapping[str, str] | None = None) -> Run:
        """Run the program in the scratch folder. Raises SystemExit where it fails."""
        return self.succeed([sys.executable, "-m", "quantcli", *arguments], more)

    def succeed(self, command: Sequence[str], more: Mapping[str, str] | None = None) -> Run:
        """Raises SystemExit where a command fails."""
        done = process(command, self.scratch, more)
        if done.status:
            raise SystemExit(f"{' '.join(command)}: exit {done.status}\n{done.said[-2000:]}")
        return done


def compiled() -> None:
    """Compile the package, as its installation does: else every short run would compile it anew."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "quantcli")], check=True)


def process(command: Sequence[str], folder: Path, more: Mapping[str, str] | None = None) -> Run:
    """Run a command in ``folder`` to its end and measure it. ``more``: variables of its environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **(more or {})}
    paths = folder / f".stdout-{os.getpid()}", folder / f".stderr-{os.getpid()}"
    start = time.perf_counter()
    with open(paths[0], "wb") as output, open(paths[1], "wb") as said:
        child = subprocess.Popen(command, cwd=folder, stdout=output, stderr=said, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    texts = [path.read_text(errors="replace") for path in paths]
    for path in paths:
        path.unlink()
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(seconds, used.ru_utime + used.ru_stime, peak, child.returncode, *texts, used.ru_stime)


class Others:
    """Processor seconds that other programs take from now on; nan where the system is not Linux, which counts them."""

    def __init__(self) -> None:
        self._start = self._taken()

    @staticmethod
    def _taken() -> float:
        """By all programs, but this process and its children that have ended."""
        if not sys.platform.startswith("linux"):
            return float("nan")
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system = map(int, file.readline().split()[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])

    @property
    def seconds(self) -> float:
        """Since then."""
        return self._taken() - self._start


Measure: TypeAlias = Callable[[Place], list[Row]]
