"""An interrupt while the program is still being loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import builtins, sys
original, name = builtins.__import__, {name!r}

def interrupted(module, *arguments, **named):
    if module == name or module.startswith(name + "."):
        sys.modules[name] = None  # as a library behaves whose loading was cut off: it cannot be loaded again
        raise KeyboardInterrupt
    return original(module, *arguments, **named)

builtins.__import__ = interrupted
sys.argv = ["quantcli", "convert", "missing", "-t", "Q8_0"]
from quantcli.cli import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "numpy", "quantcli.cli.app", "quantcli.commands"])
def test_an_interrupt_while_loading_is_no_traceback(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", START.format(name=name)], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() in ("", "error: interrupted; no file was written or replaced")


LOST = """
import signal, sys, time, weakref
from quantcli.cli import app

class Thing:
    {method}

def command():
    thing = Thing()
    reference = weakref.ref(thing, {callback})
    del thing
    time.sleep(30)

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run in the background
app._run_command.__globals__["_wanted"] = lambda arguments: lambda standalone_mode: command()
app.run()
"""
SENT = "signal.raise_signal(signal.{name})"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("kind", ["finalizer", "callback"])
def test_an_interrupt_inside_what_python_does_by_itself_is_not_lost(name: str, kind: str) -> None:
    sent = SENT.format(name=name)
    method, callback = (f"def __del__(self): {sent}", None) if kind == "finalizer" else ("pass", f"lambda _: {sent}")
    program = LOST.format(method=method, callback=callback)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "error: interrupted; no file was written or replaced"
