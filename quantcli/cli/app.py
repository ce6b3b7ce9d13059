"""The Typer application: one file per command, and the frame that turns errors into exit codes.

`quantcli --help` must start as fast as a bare Typer application, so the command files import the verbs (and with them
numpy) only when a command runs; and a run builds the options of its own command alone, a list of commands none at all.
The annotations of a command's options are no texts (there is no `from __future__ import annotations`): Typer would
evaluate each of them five times.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

import typer

from quantcli import __version__
from quantcli.cli.examples import epilog
from quantcli.cli.frame import frame
from quantcli.cli.values import Command, Group
from quantcli.errors import Interrupted
from quantcli.output.interrupts import act_by_default, deliver_again, terminate
from quantcli.system import ENDINGS, open_existing

#: in the order of the help; each is declared in ``<name>_options.py``
COMMANDS = (
    "convert", "assemble", "graft", "inspect", "check", "verify", "formats", "imatrix", "calibrate", "plan", "analyze",
    "perplexity", "compare", "generate", "embed", "diff", "reproduce", "card", "release", "bench", "schema",
)  # fmt: skip
#: the threads of numpy's products keep a core busy for 2^26 cycles where there is nothing for them, from the moment on
#: that numpy is loaded; 2^20, less than a millisecond, are enough
BLAS_WAITS = "20"


def application(names: Sequence[str] = COMMANDS, *, outline: bool = False) -> typer.Typer:
    """The program with these commands; an ``outline`` knows their names and purposes, not their options."""
    made = typer.Typer(
        name="quantcli",
        cls=Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="From a Hugging Face checkpoint to quantized GGUF files: one pass, no torch, the same bytes everywhere.",
    )
    made.callback()(options)
    for name in names:
        run: Callable[..., None] = importlib.import_module(f"quantcli.cli.{name}_options").run
        declare = made.command(name=name, cls=Command, help=run.__doc__, epilog=epilog(name))
        declare((lambda: None) if outline else run)
    return made


def __getattr__(name: str) -> typer.Typer:
    """``app``: the whole program, for those who import it."""
    if name == "app":
        return application()
    raise AttributeError(name)


def _wanted(arguments: Sequence[str]) -> typer.Typer:
    """As much of the program as this command line needs."""
    if arguments[:1] in (["--version"], ["-V"]):
        return application(())
    words = [word for word in arguments if not word.startswith("-")]
    if "_QUANTCLI_COMPLETE" in os.environ or any("completion" in word for word in arguments):
        return application()
    if words[:1] and words[0] in COMMANDS:
        return application(words[:1])
    return application(outline=not words)


def _version(value: bool) -> None:
    if value:
        print(f"quantcli {__version__}")
        raise typer.Exit


def options(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options of the program itself."""


def _standard_streams() -> None:
    """A closed stream is a null device, or the next file that is opened would take its place; what a stream's encoding
    lacks is escaped."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = open_existing(os.devnull)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            opened = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
            setattr(sys, name, opened)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def run() -> None:
    """Parse the command line, run the command, exit."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", BLAS_WAITS)
    gc.set_threshold(1_000_000, 50, 50)  # headers become a million objects that stay: to look through them takes long
    for number in ENDINGS:
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, terminate)
    deliver_again()
    _standard_streams()
    frame.start(as_json="--json" in sys.argv, debug="--debug" in sys.argv)  # until the command itself says it
    try:
        status = _run_command()
    finally:
        act_by_default()
    gc.freeze()  # what is alive goes with the process: the interpreter looks through none of it at its end
    sys.exit(status)


def _run_command() -> int:
    """The exit code of the command; whatever is wrong has been said."""
    try:
        status = _wanted(sys.argv[1:])(
            standalone_mode=False
        )  # Exit arrives as its code, other values are results of commands
        if status == Interrupted.exit_status:  # Typer swallows the interrupt itself
            raise KeyboardInterrupt
    except BrokenPipeError:
        # The reader of our output went away (`| head`): that is its business, not an error of ours.
        os.dup2(open_existing(os.devnull), sys.stdout.fileno())
        return 1
    except BaseException as error:  # the one place where everything ends
        return frame.fail(error)
    return status if isinstance(status, int) else 0
