"""What publishers do, as functions: compare two files, make one again, write a card, make a release."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from quantcli.api import results
from quantcli.api.build import built
from quantcli.api.common import PathLike, Texts, expected, path, paths, several
from quantcli.api.progress import Callback, Listening
from quantcli.report import releases as objects


def diff(
    a: PathLike,
    b: PathLike,
    *,
    tensor: str | None = None,
    values: bool = True,
    progress: Callback | None = None,
) -> results.DiffResult:
    """What two GGUF files (or checkpoints) do not share: metadata, types, bytes; and, with ``values``, how far the
    decoded values of tensors are apart whose bytes differ. ``tensor``: this one alone. A difference is no error."""
    from quantcli.commands import diff as verb

    with expected(), Listening(progress) as reporter:
        request = verb.DiffRequest(a=Path(a), b=Path(b), tensor=tensor, values=values)
        return cast(results.DiffResult, built(objects.DiffResult, verb.run(request, reporter)))


def reproduce(
    file: PathLike,
    source: PathLike | None = None,
    *,
    imatrix: PathLike | None = None,
    statistics: PathLike | None = None,
    calibration: PathLike | Sequence[PathLike] = (),
    merge_lora: PathLike | None = None,
    lora_base: PathLike | None = None,
    output: PathLike | None = None,
    threads: int | None = None,
    progress: Callback | None = None,
) -> results.ReproduceResult:
    """Make ``file`` again from what it says of itself, and compare every byte. ``same`` says whether all are equal,
    ``problem`` what is not: other ingredients are a result here, no exception. ``output``: a folder that keeps it."""
    from quantcli.cli import parse
    from quantcli.commands import reproduce as verb

    with expected(), Listening(progress) as reporter:
        request = verb.ReproduceRequest(
            file=Path(file),
            source=path(source),
            imatrix=path(imatrix),
            statistics=path(statistics),
            calibration=paths(calibration),
            merge_lora=path(merge_lora),
            lora_base=path(lora_base),
            output=path(output),
            threads=threads,
        )
        return cast(
            results.ReproduceResult, built(objects.ReproduceResult, verb.run(request, parse.from_texts, reporter))
        )


def card(folder: PathLike, *, force: bool = False, fields: Mapping[str, Any] | None = None) -> results.CardResult:
    """Write the model card of a folder of GGUF files. ``fields`` of the front matter go before what the files say;
    ``force`` replaces a README.md that is no card of quantcli's."""
    from quantcli.publishing import card as verb

    with expected(), Listening(None) as reporter:
        found = verb.run(Path(folder), reporter, force=force, fields=fields)
        return cast(results.CardResult, built(objects.CardResult, found))


def release(
    file: PathLike,
    *,
    only: Texts = (),
    dry_run: bool = False,
    upload: bool = False,
    attest: PathLike | None = None,
    sign: str | None = None,
    names: str | None = None,
    threads: int | None = None,
    progress: Callback | None = None,
) -> results.ReleaseResult:
    """Make all that a release.toml describes: calibrate, convert, verify, measure, card, attest. Called again, it goes
    on: what is complete is kept. ``only``: these of its types. Nothing is uploaded without ``upload``."""
    from quantcli.cli import parse
    from quantcli.publishing import settings, steps
    from quantcli.publishing.state import ReleaseRequest

    with expected(), Listening(progress) as reporter:
        parse.check_names(names)
        found = settings.read(Path(file))
        changed: dict[str, Any] = {"sign": sign, "names": names}
        found = dataclasses.replace(found, **{name: value for name, value in changed.items() if value is not None})
        request = ReleaseRequest(
            settings=found,
            only=several(only),
            dry_run=dry_run,
            attest=path(attest),
            threads=threads,
            confirm=lambda question: upload,
        )
        return cast(results.ReleaseResult, built(objects.ReleaseResult, steps.run(request, parse.from_texts, reporter)))
