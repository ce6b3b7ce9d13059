"""Compile and render chat templates in a process of their own: 2 s, 64 MB, 4 million characters, then it is killed.

A template is a program: it may loop for ever, double a text forty times or call itself. The process that runs it
(`interpreter.py`) limits itself where the kernel can (Linux), and is watched from here everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantcli import system
from quantcli.chat import interpreter
from quantcli.errors import BadTokenizer, MissingPackage

SECONDS = 2  # that the templates of one call may take
STARTING = 20.0  # seconds for the interpreter to start, on a busy machine
MEMORY = 64 << 20  # bytes beyond an interpreter with Jinja
CHARACTERS = 4 << 20  # of a rendered text
SOURCE = 1 << 20  # characters of a template: the longest known one has 30,000
PACE = 0.02  # seconds between two looks at the process
KEY = "tokenizer.chat_template"
HINT = "leave out --chat to continue a plain text; `quantcli convert --chat-template FILE` stores another template"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a template ended: "ok", or what went wrong, in which line of it, and what was said."""

    outcome: str
    line: int | None = None
    message: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong with the template, as the end of a sentence that begins with it."""
        place = "" if self.line is None else f" in line {self.line}"
        return _SENTENCES[self.outcome].format(place=place, message=" ".join(self.message.split()))


_SENTENCES = {
    "syntax": "fails{place}: {message}",
    "failed": "fails{place}: {message}",
    "refused": "refuses the conversation{place}: {message}",
    "memory": f"needs more than {MEMORY >> 20} MB of memory",
    "time": f"takes more than {SECONDS} s",
    "length": f"gives more than {CHARACTERS:,} characters",
    "source": f"is longer than {SOURCE:,} characters",
    "unicode": "gives half of a surrogate pair, which is no Unicode text",
    "died": "fails: its interpreter broke off ({message})",
}


def available() -> bool:
    """Whether Jinja is installed."""
    return importlib.util.find_spec("jinja2") is not None


def render(template: str, variables: Mapping[str, object]) -> str:
    """The text that ``template`` makes of ``variables`` (JSON values). Raises MissingPackage, BadTokenizer."""
    if not available():
        raise MissingPackage("chat templates need the jinja2 package", where="--chat", hint="pip install jinja2")
    text = ""
    ending = Ending("source")
    if len(template) <= SOURCE:
        written, (ending,) = _run([template], variables)
        try:
            text = written.decode()
        except UnicodeDecodeError:
            ending = Ending("unicode") if ending.outcome == "ok" else ending
    if ending.outcome != "ok":
        raise BadTokenizer(f"the chat template {ending.sentence}", where=KEY, hint=HINT)
    return text


def problems(templates: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with those of the named ``templates`` that do not compile, as the end of a sentence.

    Raises MissingPackage.
    """
    if not available():
        raise MissingPackage("chat templates need the jinja2 package", hint="pip install jinja2")
    endings = {name: Ending("source") for name, text in templates.items() if len(text) > SOURCE}
    short = [name for name in templates if name not in endings]
    if short:
        endings.update(zip(short, _run([templates[name] for name in short], None)[1], strict=True))
    return {name: endings[name].sentence for name in templates if endings[name].outcome != "ok"}


def _run(templates: Sequence[str], variables: Mapping[str, object] | None) -> tuple[bytes, list[Ending]]:
    """(what the last template wrote, how each ended); variables None only compiles them."""
    limits = {
        "memory": MEMORY if system.memory_can_be_limited() else None,
        "seconds": SECONDS,
        "characters": CHARACTERS,
    }
    request: dict[str, object] = {"path": sys.path, "limits": limits, "templates": templates}
    if variables is not None:
        request["context"] = variables
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(Path(interpreter.__file__).resolve())]
    with tempfile.TemporaryFile() as input:  # not a pipe: it may hold more than one takes at once
        input.write(json.dumps(request).encode())
        input.seek(0)
        process = subprocess.Popen(command, stdin=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            written, said, cause = _watched(process)
        finally:
            process.kill()
    endings = _endings(said)[: len(templates)]
    broken = cause or Ending("died", message=f"status {process.returncode}, {said[-80:].decode(errors='replace')}")
    return written, endings + [broken] * (len(templates) - len(endings))


def _watched(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes, Ending | None]:
    """(stdout, stderr, why the process was killed): looks at time and memory until it ends."""
    begun = time.monotonic()
    last = begun + STARTING
    most = math.inf  # bytes of memory
    ready = False
    while True:
        try:
            return *process.communicate(timeout=PACE), None
        except subprocess.TimeoutExpired as pause:
            said = pause.stderr or b""
        if said and not ready:
            ready = True
            last = max(begun + SECONDS, time.monotonic() + SECONDS / 2)  # a busy machine takes long to start
            most = math.inf if system.memory_can_be_limited() else system.resident_memory(process.pid) + MEMORY
        cause = "time" if time.monotonic() > last else ""
        if math.isfinite(most) and system.resident_memory(process.pid) > most:
            cause = "memory"
        if cause:
            process.kill()
            return *process.communicate(), Ending(cause)  # what it told before still holds


def _endings(said: bytes) -> list[Ending]:
    """What the interpreter told, but for its first line."""
    found = []
    for line in said.splitlines():
        with suppress(ValueError, TypeError):
            ending = Ending(**json.loads(line))
            if ending.outcome != interpreter.READY:
                found.append(ending)
    return found
