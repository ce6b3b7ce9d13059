"""The command line: declarations of options, exit codes, nothing else. `main` is the entry point."""

from __future__ import annotations


def main() -> None:
    """Run `quantcli`. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        from quantcli.cli.app import run

        run()
    except KeyboardInterrupt:  # before the command or after it: there is nothing to say
        raise SystemExit(130) from None
