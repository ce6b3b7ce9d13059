"""`quantcli release release.toml`"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Threads, use_threads

NAME = "release"
Option = typer.Option


def run(
    file: Annotated[Path, typer.Argument(metavar="RELEASE.toml", readable=False, help="See examples/release.toml.")],
    only: Annotated[
        Optional[list[str]], Option("--only", metavar="T", help="Only this type of the release's; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show files, sizes, disk and time; write, fetch and upload nothing.")
    ] = False,
    yes: Annotated[bool, Option("--yes", help="Upload without asking.")] = False,
    attest: Annotated[
        Optional[Path],
        Option(metavar="FILE", help="Write an in-toto statement there, and a CycloneDX bill of materials beside it."),
    ] = None,
    sign: Annotated[
        Optional[str],
        Option(metavar="CMD", help="Sign statements with this command; {} stands for the file, else it comes last."),
    ] = None,
    name: Annotated[
        Optional[str], Option("--name", metavar="HOW", help="How files are called: `default` or `convention`.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make all that a file describes: calibrate, convert, verify, measure, card, upload. Run again, it goes on."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.cli import parse
    from quantcli.publishing import settings, steps
    from quantcli.publishing.state import ReleaseRequest

    parse.check_names(name)
    found = settings.read(file)
    if sign is not None:
        found = dataclasses.replace(found, sign=sign)
    if name is not None:
        found = dataclasses.replace(found, names=name)

    def confirm(question: str) -> bool:
        asked = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
        return yes or (asked and typer.confirm(question, err=True))

    request = ReleaseRequest(
        settings=found, only=tuple(only or ()), dry_run=dry_run, attest=attest, threads=threads, confirm=confirm
    )
    frame.finish(steps.run(request, parse.from_texts, reporter))
