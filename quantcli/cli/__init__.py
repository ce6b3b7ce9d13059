"""The command line: declarations of options, exit codes, nothing else. `main` is the entry point."""

from __future__ import annotations


def main() -> None:
    """Run `quantcli`. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""
    from quantcli.cli.app import run

    run()
