"""The program as a script runs it: no terminal, captured output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT = 120


def quantcli(
    *arguments: object, cwd: Path | None = None, timeout: float = TIMEOUT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m quantcli` with these arguments; ``environment`` is added to the present one."""
    command = [sys.executable, "-m", "quantcli", *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if key != "QUANTCLI_SIMD"} | environment
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=env)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line of bash, with $Q as quantcli."""
    line = command.replace("$Q", f"{sys.executable} -m quantcli")
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT)
