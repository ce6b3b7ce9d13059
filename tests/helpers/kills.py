"""Conversions that are killed: at a random time, when the first name changes, or at one of their file system calls.

A kill is named by (seed, number). What it leaves is compared with what the folder held before and what the conversion
makes when nobody stops it: every file is one or the other, all of a set together, or `verify` says which is not.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers import oracles

MODEL = "qwen3"  # 177 kB of weights
LIST = "SHA256SUMS"
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALS = (signal.SIGKILL, *HANDLED)
CALLS = ("open", "fsync", "link", "replace", "rename", "unlink", "close", "fchmod")  # of os: the steps of a writer
LONGEST = 300.0  # seconds that a run may take, on a busy machine
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

State = dict[str, str]  # name of a visible file -> sha256


@dataclass(frozen=True)
class Scenario:
    """One kind of conversion."""

    types: tuple[str, ...] = ("Q8_0",)
    split: bool = False
    force: bool = False  # over files of an earlier conversion
    listed: bool = False  # with --checksums

    def command(self, model: Path, *, earlier: bool = False) -> list[str]:
        """The arguments of quantcli, run in the output folder."""
        output = "m.gguf" if len(self.types) == 1 else "./"
        options = [part for name in self.types for part in ("-t", name)] + ["-o", output, "--threads", "2"]
        options += ["--split-max-size", "60K"] if self.split else []
        options += ["--force"] if self.force and not earlier else []
        options += ["--checksums", LIST] if self.listed else []
        options += ["--metadata", "general.version=earlier"] if earlier else []
        return ["convert", str(model), *options]


SCENARIOS = [
    Scenario(types, split, force, listed)
    for types, split, force, listed in itertools.product(
        (("Q8_0",), ("Q8_0", "Q4_0", "F16")), (False, True), (False, True), (False, True)
    )
]


@dataclass
class Prepared:
    """A scenario with what there is before it and after it."""

    scenario: Scenario
    command: list[str]
    template: Path
    before: State
    after: State
    steps: int  # calls of CALLS
    seconds: dict[str, float] = field(default_factory=dict)  # of an undisturbed run, by how it is started


@dataclass(frozen=True)
class Outcome:
    """What one kill left. ``problems``: (bar, what)."""

    number: int
    signal: str
    aim: str
    inside: bool  # the names were partly given, or the run had begun to
    problems: tuple[tuple[str, str], ...]


def prepare(scenario: Scenario, model: Path, work: Path) -> Prepared:
    """Make the folder that every kill of the scenario begins with, and learn what a whole run makes of it."""
    template, whole = work / "template", work / "whole"
    shutil.rmtree(work, ignore_errors=True)
    template.mkdir(parents=True)
    if scenario.force:
        run_child(scenario.command(model, earlier=True), template)
    if scenario.listed:
        with open(template / LIST, "a") as file:
            file.write(f"{'0' * 64}  another.gguf\n")
    shutil.copytree(template, whole)
    command = scenario.command(model)
    start = time.monotonic()
    steps, status, said = run_child(command, whole)
    if status:
        raise AssertionError(f"{command} fails when nobody stops it: {said}")
    seconds = time.monotonic() - start
    return Prepared(scenario, command, template, state(template), state(whole), steps, {"fork": seconds})


def state(folder: Path) -> State:
    """The visible files of a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }


# ---- one run


def run_child(
    command: list[str],
    folder: Path,
    *,
    number: int = 0,
    step: int = -1,
    late: bool = False,
    watch: Callable[[int], None] | None = None,
) -> tuple[int, int, str]:
    """(steps taken, wait status, standard error) of a command in a forked copy of this process, which has imported
    everything. Signal ``number`` comes from inside at ``step``, before the call or (``late``) after it; ``watch`` sends
    it from outside."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    counter = folder.parent / "steps"
    child = os.fork()
    if not child:
        _be_quantcli(command, folder, counter, number, step, late)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    if watch is not None:
        watch(child)
    status = _wait(child)
    steps = int(counter.read_text() or 0) if counter.exists() else 0
    return steps, os.waitstatus_to_exitcode(status), (folder.parent / "stderr").read_text(errors="replace")


def _wait(child: int) -> int:
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still running after {LONGEST:g} s")


def _be_quantcli(command: list[str], folder: Path, counter: Path, number: int, step: int, late: bool) -> None:
    """The rest of a forked child's life."""
    code = 70
    try:
        os.chdir(folder)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            opened = os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, descriptor)
            os.close(opened)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["quantcli", *command]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_DFL)
        from quantcli.cli import main
        from quantcli.output import named, writer

        named._published.clear()  # those of the process that this one is a copy of
        writer._unfinished.clear()
        _count_steps(counter, number, step, late)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except KeyboardInterrupt:
            code = 130
        sys.stdout.flush()
        atexit._run_exitfuncs()
    finally:
        os._exit(code)


def _count_steps(counter: Path, number: int, step: int, late: bool) -> None:
    """Put a counter around the file system calls, which kills this process at its step."""
    taken = itertools.count()
    descriptor = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            now = next(taken)
            os.pwrite(descriptor, str(now + 1).encode(), 0)
            if now == step and not late:
                os.kill(os.getpid(), number)
            try:
                return original(*arguments, **named)
            finally:  # also where the call fails
                if now == step and late:
                    os.kill(os.getpid(), number)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def run_program(command: list[str], folder: Path, watch: Callable[[int], None]) -> tuple[int, str]:
    """(exit code, standard error) of a command as a shell starts it."""
    line = [sys.executable, "-m", "quantcli", *command]
    with open(folder.parent / "stderr", "w+") as said:
        process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, env=ENVIRONMENT)
        watch(process.pid)
        process.wait(LONGEST)
        said.seek(0)
        return process.returncode, said.read()


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def after_a_while(number: int, seconds: float) -> Callable[[int], None]:
    """A signal at a time."""

    def watch(process: int) -> None:
        time.sleep(seconds)
        _send(process, number)

    return watch


def at_first_change(number: int, folder: Path, seconds: float) -> Callable[[int], None]:
    """A signal when a name in the folder has come, gone or become another file, and a moment later."""

    def visible() -> set[tuple[str, int]]:
        return {(entry.name, entry.inode()) for entry in os.scandir(folder) if not entry.name.startswith(".")}

    before = visible()

    def watch(process: int) -> None:
        end = time.monotonic() + LONGEST
        while visible() == before and time.monotonic() < end:
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(0.0002)
        time.sleep(seconds)
        _send(process, number)

    return watch


# ---- kills


def kills(work: Path, seed: int, numbers: range, scenarios: Sequence[Scenario] = tuple(SCENARIOS)) -> Iterator[Outcome]:
    """Kill conversions, one after the other, in all scenarios by turns."""
    from quantcli.cli import app  # noqa: F401 - a forked child shall have it all
    from quantcli.cli.parse import convert_request
    from quantcli.commands import convert

    model = oracles.unpack(MODEL, work)
    convert.run(convert_request(source=model, types=("Q8_0",), dry_run=True))
    prepared: dict[int, Prepared] = {}
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        which = number % len(scenarios)
        if which not in prepared:
            prepared[which] = prepare(scenarios[which], model, work / f"scenario-{which}")
        yield kill(prepared[which], number, rng, work / "run")


def kill(one: Prepared, number: int, rng: random.Random, work: Path) -> Outcome:
    """One conversion, one signal, and what is there afterwards."""
    shutil.rmtree(work, ignore_errors=True)
    folder = work / "out"
    shutil.copytree(one.template, folder)
    sent = rng.choice(SIGNALS)
    aim = rng.choices(("step", "change", "time", "program"), (5, 2, 2, 1))[0]
    if aim == "step":
        step, late = rng.randrange(one.steps), rng.random() < 0.5
        _, status, said = run_child(one.command, folder, number=sent, step=step, late=late)
        aim = f"step {step}{' late' if late else ''}"
    elif aim == "change":
        watch = at_first_change(sent, folder, rng.choice((0.0, rng.uniform(0, 0.01))))
        _, status, said = run_child(one.command, folder, watch=watch)
    elif aim == "time":
        watch = after_a_while(sent, rng.uniform(0, 1.1 * one.seconds["fork"]))
        _, status, said = run_child(one.command, folder, watch=watch)
    else:
        watch = after_a_while(sent, rng.uniform(0, one.seconds["fork"] + 0.6))
        if rng.random() < 0.5:
            watch = at_first_change(sent, folder, rng.uniform(0, 0.01))
        status, said = run_program(one.command, folder, watch)
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    left = state(folder)
    problems = [*check_files(one, left, folder, sent), *check_message(one, left, status, said)]
    problems += check_hidden(hidden, folder, sent)
    inside = left not in (one.before, one.after) or "complete under" in said
    return Outcome(number, signal.Signals(sent).name, f"{' '.join(one.command[2:])}: {aim}", inside, tuple(problems))


# ---- what must be so afterwards

FILES, MESSAGES, HIDDEN = "files", "messages", "hidden"
Problems = list[tuple[str, str]]


def check_files(one: Prepared, left: State, folder: Path, sent: int) -> Problems:
    """Every file is the earlier or the new one; a set is of one conversion, or `verify` refuses each of its files.
    After an interrupt all files are earlier ones, or all are new."""
    found: Problems = []
    for name, digest in left.items():
        if digest not in (one.before.get(name), one.after.get(name)):
            found.append((FILES, f"{name} is not whole"))
    if sent in HANDLED and left not in (one.before, one.after):
        found.append((FILES, f"some files are new, some are not: {sorted(left)}"))
    for names in _sets(one):
        here = [name for name in names if name in left]
        whole = any(all(left.get(name) == other.get(name) for name in names) for other in (one.before, one.after))
        found += [
            (FILES, f"verify calls {name} {'bad' if whole else 'ok'}, its set is {'whole' if whole else 'not'}")
            for name in here
            if _verified(folder, name) != whole
        ]
    if one.scenario.listed and left == one.after:
        found += [(FILES, f"{name} is not as listed") for name in left if name != LIST and not _listed(folder, name)]
    return found


def _sets(one: Prepared) -> list[list[str]]:
    """The names of GGUF files that belong together."""
    by_stem: dict[str, list[str]] = {}
    for name in sorted({*one.before, *one.after} - {LIST}):
        by_stem.setdefault(re.sub(r"-\d{5}-of-", "-", name), []).append(name)
    return list(by_stem.values())


def _verified(folder: Path, name: str, checksums: Path | None = None) -> bool:
    from quantcli.commands import verify

    return verify.run([folder / name], checksums=checksums)["ok"]


def _listed(folder: Path, name: str) -> bool:
    return _verified(folder, name, folder / LIST)


def check_message(one: Prepared, left: State, status: int, said: str) -> Problems:
    """What is said of files is so."""
    found: Problems = []
    new = {name for name, digest in one.after.items() if left.get(name) == digest != one.before.get(name)}
    named = re.search(r"complete under (?:its name|their names): ([^;\n]*)", said)
    if named:
        more = re.search(r" and (\d+) more$", named[1])
        names = {Path(name).name for name in named[1].removesuffix(more[0] if more else "").split(", ")}
        if not names <= new or len(names) + int(more[1] if more else 0) != len(new):
            found.append((MESSAGES, f"says {named[0]!r}, new are {sorted(new)}"))
    if "no file was written" in said and left != one.before:
        found.append((MESSAGES, f"says that no file was written, new are {sorted(new)}"))
    if status == 0 and left != one.after:
        found.append((MESSAGES, "exit 0, and the files are not there"))
    ours = re.search(r'File "[^"]*/quantcli/\w', said)
    starting = said.rstrip().endswith("KeyboardInterrupt") and not ours  # Python itself, before it came to us
    if not starting and ((status not in (0, 130) and status >= 0) or "Traceback" in said or "unexpected" in said):
        found.append((MESSAGES, f"exit {status}: {said[-800:]}"))
    return found


def check_hidden(hidden: list[str], folder: Path, sent: int) -> Problems:
    """Temporary files: none after an interrupt; after SIGKILL the next run removes them."""
    from quantcli.output import writer

    if hidden and sent in HANDLED:
        return [(HIDDEN, f"left behind: {hidden}")]
    writer.clean_stale(folder)
    return [(HIDDEN, f"not cleaned: {path.name}") for path in folder.iterdir() if path.name.startswith(".")]
