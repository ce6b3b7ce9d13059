"""What all commands share: the reporter of the running command, and how an exception becomes an exit code."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from contextlib import suppress

from quantcli.cli.examples import LINES
from quantcli.errors import Interrupted, MissingFile, OutputFailed, QuantcliError, UsageError
from quantcli.report.terminal import Reporter, printable, say


class Frame:
    """The state of the one command that a process runs."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        self.debug = False

    def start(self, *, quiet: bool = False, as_json: bool = False, debug: bool = False, raw: bool = False) -> Reporter:
        """Called first by every command with its common options."""
        self.debug = debug
        self.reporter = Reporter(quiet=quiet, as_json=as_json, raw=raw)
        return self.reporter

    def finish(self, result: Mapping[str, object], kept: str = "the figures are those of the complete chunks") -> None:
        """Called last by every command: print the object of --json; an interrupted command ends with its exit code."""
        self.reporter.result(result)
        if result.get("interrupted"):
            self.reporter.warning(f"interrupted: {kept}")
            raise SystemExit(Interrupted.exit_status)

    def fail(self, error: BaseException) -> int:
        """Print ``error`` the way a user should see it; returns the exit code."""
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 1
        if self.debug:
            say(printable("".join(traceback.format_exception(error)).rstrip("\n")))
        if type(error).__name__ == "NoArgsIsHelpError":  # the bare program name
            self.reporter.note(_usage_text(error) or "")
            return UsageError.exit_status
        known = _in_their_words(_translate(error))
        with suppress(OSError):  # stdout is full or gone: the exit code still tells
            self.reporter.error(known)
        return known.exit_status


def _usage_text(error: BaseException) -> str | None:
    """What an error of Typer says. Typer carries its own copy of click in newer versions: look, don't import."""
    describe = getattr(error, "format_message", None)
    return None if describe is None else str(describe())


def _near(path: str) -> str | None:
    """What lies there under nearly the same name."""
    from quantcli.sources import ways

    near = ways.nearest(path)
    return f"did you mean {near}?" if near else None


def _program(path: str) -> str:
    """The command as it is typed: `python -m quantcli convert`, too, is `quantcli convert` in a hint."""
    return re.sub(r"^(python[\d.]* -m )?(\S*/)?quantcli(\.cli)?", "quantcli", path)


def _meant(text: str, where: str) -> str | None:
    """What somebody meant who wrote types without -t, `-f` for --force, or the name of a command with a slip in it."""
    quoted = re.findall(r"\(([^()]+)\)", text)
    words = quoted[-1].split() if quoted else []
    if "extra argument" in text and words:
        from quantcli.plan import recipes

        try:
            names = [recipes.parse(word).name for word in words]
        except QuantcliError:
            return None
        return f"several types: -t TYPE,{','.join(names)}, or -t again before each"
    example = LINES.get(where.split()[-1], ("",))[0].partition("#")[0].rstrip()
    if text.startswith("Missing") and example:
        return f"for example: {example}"
    if "No such option: -f" in text:
        return f"existing files are replaced by --force; `{where} --help` shows the options"
    return None


def _what_is_left() -> str:
    """What an interrupted command has to say of its files: none is new, or those that are complete."""
    from quantcli.output import named  # without numpy: the interrupt may have come while it was loaded

    complete = named.published()
    kept = "; the same command goes on with what is written" if named.is_kept() else ""
    if not complete:
        return f"interrupted; no file was written or replaced{kept}"
    return f"interrupted; complete under {named.listing(complete)}{kept}"


def _in_their_words(error: QuantcliError) -> QuantcliError:
    """The error with places as the user named them: a folder of the hub's cache is `hf://org/name`."""
    from quantcli.places import shown
    from quantcli.sources.hub.address import spelled

    where = error.where or ""
    error.message = shown(error.message)
    error.where = None if error.where is None else spelled(shown(where))
    error.hint = None if error.hint is None else shown(error.hint)
    if where.startswith("hf:/") and (
        error.hint is None or isinstance(error, OutputFailed)
    ):  # somewhere else than where a source is named
        error.hint = "an address of the hub names a model that is read; files that are written or verified lie here"
    return error


def _translate(error: BaseException) -> QuantcliError:
    if isinstance(error, MissingFile) and error.hint is None and error.where:
        error.hint = _near(error.where)
    if isinstance(error, QuantcliError):
        return error
    text = _usage_text(error)
    if text is not None:
        context = getattr(error, "ctx", None)
        where = _program(context.command_path) if context is not None else "quantcli"
        return UsageError(text, hint=_meant(text, where) or f"`{where} --help` shows the options")
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return Interrupted(_what_is_left())
    if isinstance(error, MemoryError):
        return QuantcliError("out of memory", hint="use fewer --threads")
    if isinstance(error, FileNotFoundError):
        name = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else None
        return MissingFile("no such file", where=name, hint=_near(name) if name else None)
    if isinstance(error, OSError):
        return OutputFailed(error.strerror or str(error), where=error.filename)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return QuantcliError("the system refuses another thread", hint="use fewer --threads, or raise `ulimit -u`")
    hint = "run again with --debug for the traceback; please report this"
    return QuantcliError(f"unexpected {type(error).__name__}: {error}", hint=hint)


frame = Frame()
