#!/usr/bin/env python3
"""Make the virtual environment of the Makefile, and say every few seconds how far it is.

    python scripts/set_up.py .venv test [peers]

The standard library is enough: this runs before anything is installed. What pip prints goes into build/set-up.log and
is shown when it fails.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "set-up.log"
EVERY = 4.0  # seconds between signs of life
SHOWN = ("Collecting ", "Downloading ", "Preparing ", "Building ", "Installing ", "Getting ", "Created ")


def latest_line() -> str:
    """The last line of the log that says what pip is doing, cut to a terminal's width."""
    lines = [line.strip() for line in LOG.read_text(encoding="utf-8", errors="replace").splitlines()]
    line = next((line for line in reversed(lines) if line.startswith(SHOWN)), "")
    return f": {line[:60]}" if line else ""


def compiled(since: float) -> str:
    """How many files of the kernels have been compiled since a time; "" before the first."""
    files = [*ROOT.glob("csrc/*.c"), *ROOT.glob("csrc/encode/*.c"), *ROOT.glob("csrc/runner/*.c")]
    done = sum(path.stat().st_mtime >= since for path in ROOT.glob("build/kernels/*/*.o"))
    running = any(path.stat().st_mtime >= since for path in ROOT.glob("build/kernels/*"))
    return f", C kernels: {done} of {len(files)} files" if done or running else ""


def run(command: list[str], what: str) -> None:
    """Run a command with its output in the log; a line every few seconds. Exits with the log's end where it fails."""
    began, clock = time.time(), time.monotonic()
    with open(LOG, "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        while True:
            try:
                status = process.wait(EVERY)
                break
            except subprocess.TimeoutExpired:
                took = time.monotonic() - clock
                print(f"  {took:3.0f} s  {what}{latest_line()}{compiled(began)}", flush=True)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status:
        print("\n".join(LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]), file=sys.stderr)
        sys.exit(f"{what} failed; all that was said is in {LOG.relative_to(ROOT)}")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, extras = Path(sys.argv[1]), ",".join(sys.argv[2:])
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_bytes(b"")
    began = time.monotonic()
    print(f"setting up {folder} (packages, C kernels; a minute or two) ...", flush=True)
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(folder)], "virtual environment")
    target = f".[{extras}]" if extras else "."
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", "--editable"]
    run([*install, target], "packages")
    print(f"{folder} is ready after {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
