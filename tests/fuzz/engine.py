"""Run mutants in child processes under limits of time and memory, and say which of them end badly.

A mutant ends well when every command on it succeeds (without NaN in what it prints) or fails with an error of
quantcli's own. It ends badly with another exception, with a signal, beyond the time, or beyond the memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from fuzz.targets import Target, clear

SECONDS = 20.0  # of the processor: the longest that the commands on one mutant may take
PATIENCE = 6  # times as much by the clock: the machine may be busy
MEMORY = 1 << 30  # bytes beyond what the process has before its first mutant
STATE = struct.Struct("<qd")  # number of the mutant at work, when it began
POLL = 0.05
COMMANDS, FOLDER = "commands.json", "{folder}"  # beside a mutant: what runs on it, whatever its folder is called


@dataclass(frozen=True)
class Failure:
    """One mutant that ended badly: (target, seed, number) makes it again."""

    target: str
    seed: int
    number: int
    problem: str
    detail: str


def run(target: Target, seed: int, numbers: range, work: Path, crashes: Path | None = None) -> list[Failure]:
    """Run the mutants ``numbers`` of a target; inputs of bad ones are kept below ``crashes``."""
    state = mmap.mmap(-1, STATE.size)
    failures: list[Failure] = []
    first = numbers.start
    while first < numbers.stop:
        folder = work / f"{target.name}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        report = folder.with_suffix(".report")
        report.unlink(missing_ok=True)
        state[:] = STATE.pack(first, time.monotonic())
        child = os.fork()
        if child == 0:
            _child(target, seed, range(first, numbers.stop), folder, report, state, crashes)
        problem = _wait(child, state)
        if report.exists():
            failures += [Failure(**json.loads(line)) for line in report.read_text().splitlines()]
        if problem is None:
            break
        number = STATE.unpack(state[:])[0]
        failures.append(Failure(target.name, seed, number, problem, ""))
        _keep(folder, crashes, failures[-1])
        first = number + 1
    shutil.rmtree(work / f"{target.name}-{os.getpid()}", ignore_errors=True)
    return failures


def _wait(child: int, state: mmap.mmap) -> str | None:
    """Until the child ends; None where it ended by itself, else what it died of."""
    current, used = -1, 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
            return None if os.WEXITSTATUS(status) == 0 else f"exit {os.WEXITSTATUS(status)}"
        number, begun = STATE.unpack(state[:])
        if number != current:
            current, used = number, _processor_time(child)
        waited = time.monotonic() - begun
        if waited > SECONDS and (_processor_time(child) - used > SECONDS or waited > PATIENCE * SECONDS):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"more than {SECONDS:g} s"
        time.sleep(POLL)


def _processor_time(process: int) -> float:
    """Seconds of processor time of a process; where the system does not tell, those of the clock."""
    try:
        return time.clock_gettime((~process << 3) | 2)  # Linux: the clock of a process by its number
    except OSError:
        return time.monotonic()


def _child(
    target: Target, seed: int, numbers: range, folder: Path, report: Path, state: mmap.mmap, crashes: Path | None
) -> None:
    """The mutants one after the other; never returns."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        mutant = target.mutant()
        _limit_memory()
        for number in numbers:
            state[:] = STATE.pack(number, time.monotonic())
            clear(folder)
            commands = mutant(random.Random(f"{target.name} {seed} {number}"), folder)
            (folder / COMMANDS).write_text(json.dumps(commands).replace(str(folder), FOLDER))
            for command in commands:
                problem, detail = outcome(command)
                if problem is not None:
                    failure = Failure(target.name, seed, number, problem, f"quantcli {' '.join(command)}\n{detail}")
                    with report.open("a") as file:
                        file.write(json.dumps(asdict(failure)) + "\n")
                    _keep(folder, crashes, failure)
                    break
        code = 0
    except BaseException:
        report.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _limit_memory() -> None:
    """Address space: what is there, and MEMORY on top. A thread's stack and arena count as well."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


@cache
def program() -> Callable[..., object]:
    """The command line; Typer would build it anew for every call, which takes longer than the commands on a mutant."""
    import typer

    from quantcli.cli.app import app

    return typer.main.get_command(app)


def outcome(command: list[str]) -> tuple[str | None, str]:
    """(what went wrong or None, details) of one command line, run in this process."""
    from quantcli.cli.frame import frame
    from quantcli.errors import QuantcliError

    frame.start(as_json=True, quiet=True)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            status = program()(command, standalone_mode=False)
    except QuantcliError:
        return None, ""
    except BaseException as error:  # whatever it is, it is the finding
        if type(error).__name__ == "Exit":
            return None, ""
        return type(error).__name__, traceback.format_exc()
    text = printed.getvalue()
    if not status and command[0] != "inspect" and ("NaN" in text or "Infinity" in text):
        return "NaN with exit 0", text[:2000]
    return None, ""


def _keep(folder: Path, crashes: Path | None, failure: Failure) -> None:
    if crashes is None:
        return
    kept = crashes / f"{failure.target}-{failure.seed}-{failure.number}"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, ignore_dangling_symlinks=True)
    (kept / "failure.txt").write_text(f"{failure.problem}\n{failure.detail}\n")


def commands_of(kept: Path, folder: Path) -> list[list[str]]:
    """The command lines of a mutant that was kept, for a copy of it in ``folder``."""
    commands: list[list[str]] = json.loads((kept / COMMANDS).read_text())
    return [[part.replace(FOLDER, str(folder)) for part in command] for command in commands]


def replay(name: str, commands: list[list[str]], work: Path) -> list[Failure]:
    """Run these commands as those of one mutant, under the same limits."""
    return run(Target(name, 1, lambda: lambda rng, folder: commands), 0, range(1), work)


def summary(failures: list[Failure], mutants: int, seconds: float) -> str:
    """What people read."""
    lines = [f"{mutants} mutants in {seconds:.0f} s: {len(failures)} ended badly"]
    lines += [f"  {one.target} {one.seed} {one.number}: {one.problem}" for one in failures[:40]]
    return "\n".join(lines)
