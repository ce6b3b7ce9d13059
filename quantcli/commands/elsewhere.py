"""Parts of a verb's work that an engine does instead of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TypeVar

from quantcli.engines import Arguments, in_order, open_engine
from quantcli.report.terminal import Reporter

Result = TypeVar("Result")


@contextmanager
def found_by(
    engine: str | None, task: Callable[..., Result], arguments: Callable[[], Sequence[Arguments]], reporter: Reporter
) -> Iterator[Iterator[Result] | None]:
    """Results of ``task`` in the order of ``arguments``; None without an engine: the caller does the work itself.

    Nothing runs any more when the ``with`` is left. Raises UsageError, MissingPackage, EngineFailed.
    """
    if engine is None:
        yield None
        return
    with closing(open_engine(engine)) as opened:
        found = opened.results(task, arguments(), reporter.note)
        try:
            yield in_order(found)
        finally:
            found.close()  # type: ignore[attr-defined]  # engines give generators
