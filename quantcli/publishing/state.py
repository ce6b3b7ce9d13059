"""A release under way: what was asked for, what is known by now, and what has been said."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quantcli.commands.job import ConvertRequest
from quantcli.publishing.manifest import Manifest
from quantcli.publishing.settings import Settings
from quantcli.report.releases import ReleaseFile, StepResult
from quantcli.report.terminal import Reporter

Maker = Callable[..., ConvertRequest]  # texts of options -> a conversion


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """``only``: these types of the settings'; ``confirm`` is asked before anything leaves this machine."""

    settings: Settings
    only: tuple[str, ...] = ()
    dry_run: bool = False
    attest: Path | None = None
    threads: int | None = None
    confirm: Callable[[str], bool] = lambda question: False


@dataclass
class Release:
    """A release under way."""

    request: ReleaseRequest
    make: Maker
    reporter: Reporter
    source: Path
    manifest: Manifest
    imatrix: Path | None = None
    steps: list[StepResult] = field(default_factory=list)
    files: list[ReleaseFile] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.request.settings

    @property
    def folder(self) -> Path:
        return self.settings.output

    def said(self, step: str, subject: str, state: str, detail: str = "", seconds: float = 0.0) -> None:
        """Note and tell the outcome of a step."""
        self.steps.append({"step": step, "subject": subject, "state": state, "detail": detail, "seconds": seconds})
        self.reporter.note(f"{step} {subject}: {state}{f', {detail}' if detail else ''}")

    @contextmanager
    def timed(self, step: str, subject: str) -> Iterator[list[str]]:
        """Something that is done now; details are put into what it gives."""
        start, details = time.monotonic(), list[str]()
        yield details
        self.said(step, subject, "done", ", ".join(details), time.monotonic() - start)


def today() -> str:
    """The date of a measurement: SOURCE_DATE_EPOCH where it is set, as for everything that is to be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    zone = datetime.UTC
    moment = datetime.datetime.fromtimestamp(int(epoch), zone) if epoch.isdigit() else datetime.datetime.now(zone)
    return moment.date().isoformat()
