"""What the verbs share that run a model layer by layer: the folder where hidden states wait, and how its work ends."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from quantcli.errors import BadStates, Interrupted, QuantcliError, UsageError
from quantcli.evaluate.scoring import Streams
from quantcli.report.terminal import Reporter
from quantcli.runner import layerwise
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks
from quantcli.runner.waiting import Waiting


@dataclass(frozen=True, kw_only=True)
class Layerwise:
    """``states``: where hidden states wait. ``resume``: what an interrupted run has left there is used."""

    states: Path
    resume: bool = False


def wish(
    default: Path, *, layerwise: bool, states: Path | None, resume: bool, engine: str | None = None
) -> Layerwise | None:
    """What the options say; ``default``: the folder where no other is named. Raises UsageError."""
    if not layerwise:
        for option, given in (("--states", states is not None), ("--resume", resume)):
            if given:
                raise UsageError(
                    f"{option} is for a run layer by layer", hint=f"add --layerwise, or leave out {option}"
                )
        return None
    if engine is not None:
        raise UsageError("--layerwise runs in one process, --engine in many", hint="leave out one of them")
    return Layerwise(states=states or default, resume=resume)


def folder_beside(name: Path, purpose: str) -> Path:
    """Where hidden states wait when nobody says where, and there is no output: in the current folder."""
    return Path(f"{name.resolve().name.removesuffix('.gguf') or 'model'}.{purpose}.states")


class Passes:
    """The passes of one command, in a ``with``: their folders are gone when it ends well, or before a layer is done.

    What an interrupt or an error leaves can be gone on with, and the user is told how. Raises Interrupted.
    """

    def __init__(self, wish: Layerwise, verb: str, reporter: Reporter) -> None:
        self.wish, self.verb, self.reporter = wish, verb, reporter
        self.opened: list[Waiting] = []

    def open(self, session: Session, chunks: Chunks, name: str = "") -> Waiting:
        """The folder of one pass; ``name``d where there are several. Raises BadStates, OutputFailed."""
        path, layers = self.wish.states / name, session.network.settings.layers
        states = layerwise.waiting(session, chunks, path, self.verb, resume=self.wish.resume, top=self.wish.states)
        self.opened.append(states)
        if states.done:
            self.reporter.note(f"{session.name}: {states.done} of {layers} layers are done already")
        return states

    def run(self, session: Session, chunks: Chunks, name: str = "") -> Streams:
        """One pass, and what comes out of its last layer. Raises what `layerwise.pass_through` does."""
        states = self.open(session, chunks, name)
        left = layerwise.steps_left(session.network, chunks, states)
        with self.reporter.steps(f"{self.verb} {session.name}, chunks x layers", left) as advance:
            layerwise.pass_through(session.network, chunks, states, progress=advance)
        return partial(layerwise.final, session.network, states)

    def __enter__(self) -> Passes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for states in self.opened:
            if error is None:
                states.remove()
            else:
                states.end()
        with suppress(OSError):
            self.wish.states.rmdir()
        done = sum(states.done for states in self.opened)
        if (
            error is None or not done or isinstance(error, BadStates)
        ):  # there is nothing to go on with, or it says itself what helps
            return
        folder = shlex.quote(str(self.wish.states))
        goes_on = f"the same command with --resume goes on from {folder}; or delete it: rm -r {folder}"
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"interrupted; {done} layers are done and kept", hint=goes_on) from error
        if isinstance(error, QuantcliError):
            self.reporter.note(f"{done} layers are done and kept: {goes_on}")
