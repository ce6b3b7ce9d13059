"""`quantcli generate`: continue a text, or answer a question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quantcli.errors import UsageError
from quantcli.report import tables
from quantcli.report.measurements import GenerateResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import chat, generation
from quantcli.runner.generation import Generation
from quantcli.runner.sampling import Sampling
from quantcli.runner.session import RunOptions, Session, open_session


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """At most ``count`` tokens behind ``prompt``. With ``chat`` the prompt is a question in the model's chat template,
    and ``system`` a message before it."""

    model: Path
    prompt: str
    count: int = 64
    chat: bool = False
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    ignore_end: bool = False
    options: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if self.system is not None and not self.chat:
            raise UsageError("--system is for --chat")
        for option, text in (("--prompt", self.prompt), ("--system", self.system)):
            if text is not None and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise UsageError("not UTF-8 text", where=option, hint="a shell gives it in the encoding of its locale")


def run(request: GenerateRequest, reporter: Reporter = SILENT) -> GenerateResult:
    """Generate, showing the text while it comes; an interrupt ends it. Raises QuantcliError."""
    with open_session(request.model, request.options, both_sides=True) as session:
        reporter.warnings(session.network.warnings)
        made = Generation(_prompt(session, request))
        if request.options.length is None:
            session.network.require(min(session.network.settings.context, len(made.prompt) + request.count))
        if not request.chat and session.network.settings.sides is None:
            reporter.text(request.prompt)
        text, interrupted = _shown(_pieces(session, request, made), reporter)
        result: GenerateResult = {
            "schema": 1,
            "model": session.describe(),
            "prompt": request.prompt,
            "text": text,
            **made.summary(),
            "interrupted": interrupted,
        }
    tables.show_generation(reporter, result)
    return result


def _prompt(session: Session, request: GenerateRequest) -> list[int]:
    """The ids that the model reads first."""
    if not request.chat:
        return generation.prompt_ids(session, request.prompt)
    messages = [{"role": "system", "content": request.system}] if request.system is not None else []
    text = chat.render(session.tokenizer, [*messages, {"role": "user", "content": request.prompt}])
    return chat.encode(session.tokenizer, text)


def _pieces(session: Session, request: GenerateRequest, made: Generation) -> Iterator[str]:
    tokens = generation.generate(session, made, request.count, request.sampling, ignore_end=request.ignore_end)
    return session.tokenizer.stream(tokens)


def _shown(pieces: Iterator[str], reporter: Reporter) -> tuple[str, bool]:
    """(the text, whether it was interrupted)."""
    shown: list[str] = []
    interrupted = False
    try:
        for piece in pieces:
            shown.append(piece)
            reporter.text(piece)
    except KeyboardInterrupt:
        interrupted = True
    reporter.text("\n")
    return "".join(shown), interrupted
