#!/usr/bin/env python3
"""Write the man page from the command line's own help (`make man`).

    python scripts/man_page.py [OUTPUT]          # default: build/man/quantcli.1; read it with `man ./quantcli.1`

Everything comes from the declarations of the options: nothing has to be kept in step by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import typer.main

from quantcli import __version__
from quantcli.cli.app import application

OUTPUT = ROOT / "build" / "man" / "quantcli.1"
EXITS = (("0", "done"), ("1", "failed"), ("2", "wrong usage"), ("130", "interrupted"))


def escaped(text: str) -> str:
    """A text as roff shows it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in text.splitlines())


def marked(text: str) -> str:
    """The same, with what stands between backquotes in bold."""
    parts = text.split("`")
    return "".join(f"\\fB{escaped(part)}\\fR" if number % 2 else escaped(part) for number, part in enumerate(parts))


def parameter(one: Any) -> list[str]:
    """An option or argument with its text."""
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in (*one.opts, *one.secondary_opts))
    metavar = "" if getattr(one, "is_flag", False) else one.metavar or one.name.upper()
    if one.param_type_name == "argument":
        names = f"\\fI{escaped(one.metavar or one.name.upper())}\\fR"
        metavar = ""
    head = f"{names} \\fI{escaped(metavar)}\\fR" if metavar else names
    return [".TP", head, marked(getattr(one, "help", None) or "")]


def command(name: str, one: Any) -> list[str]:
    """The section of a command."""
    arguments = [p for p in one.params if p.param_type_name == "argument"]
    shown = " ".join(f"\\fI{escaped(p.metavar or p.name.upper())}\\fR" for p in arguments)
    lines = [f'.SH "{name.upper()}"', f"\\fBquantcli {name}\\fR {shown} [options]", ".PP", marked(one.help or "")]
    for entry in (p for p in one.params if not getattr(p, "hidden", False)):
        lines += parameter(entry)
    if one.epilog:
        lines += [
            ".PP",
            "Examples:",
            ".nf",
            *(escaped(line) for line in one.epilog.splitlines() if line.strip("\b ")),
            ".fi",
        ]
    return lines


def page() -> str:
    """The whole page."""
    program = typer.main.get_command(application())
    lines = [
        f'.TH QUANTCLI 1 "" "quantcli {__version__}" "User Commands"',
        ".SH NAME",
        "quantcli \\- from a Hugging Face checkpoint to quantized GGUF files",
        ".SH SYNOPSIS",
        "\\fBquantcli\\fR \\fICOMMAND\\fR [options]",
        ".SH DESCRIPTION",
        marked(program.help or ""),
        ".PP",
        "Every command takes \\fB\\-\\-json\\fR: one object on stdout; talk and progress go to stderr.",
    ]
    for name, one in program.commands.items():  # type: ignore[attr-defined]
        lines += command(name, one)
    lines += ['.SH "EXIT STATUS"']
    for code, meaning in EXITS:
        lines += [".TP", code, meaning]
    return "\n".join(lines) + "\n"


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
