"""Where the files of a conversion go: their names, and whether they may be written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from quantcli.commands import conventional as naming
from quantcli.errors import OutputFailed, UsageError
from quantcli.model import Model
from quantcli.output import checksums, writer

# What a file is called, by the role of its model. The last two are llama.cpp's conventions.
_NAMES = {
    "text": "{name}-{type}.gguf",
    "projector": "mmproj-{name}-{type}.gguf",
    "adapter": "{name}-{type}-LoRA.gguf",
}


def name_parts(
    models: Sequence[Model],
    labels: Sequence[Sequence[str]],
    output: Path | None,
    *,
    into_folder: bool,
    conventional: bool = False,
) -> list[list[Path]]:
    """Paths for all models, one per type's label, see `name_targets`. A projector's lie beside the text's.

    ``conventional``: called by GGUF's naming convention, from the metadata.
    """

    def called(model: Model) -> str:
        return naming.conventional(model.metadata, model.name) if conventional else model.name

    names = [
        [_NAMES[model.role].format(name=called(model), type=label) for label in own]
        for model, own in zip(models, labels, strict=True)
    ]
    beside = [number > 0 and model.role == "projector" for number, model in enumerate(models)]
    own = [name for group, after in zip(names, beside, strict=True) if not after for name in group]
    paths = name_targets(own, output, into_folder=into_folder)
    folder, left = paths[0].parent, iter(paths)
    return [
        [folder / name if after else next(left) for name in group] for group, after in zip(names, beside, strict=True)
    ]


def name_targets(names: Sequence[str], output: Path | None, *, into_folder: bool) -> list[Path]:
    """A path for every one of the ``names``: in the folder ``output`` or the current one, or ``output`` itself.

    ``into_folder``: what does not exist yet is a folder. Raises UsageError for several files under one name.
    """
    if output is None:
        return [Path(name) for name in names]
    if is_folder(output, len(names), into_folder=into_folder):
        return [output / name for name in names]
    if len(names) > 1:
        raise UsageError(
            "with several types the output is a folder, not a file", where=str(output), hint="give a folder with -o"
        )
    return [output]


def is_folder(output: Path, count: int, *, into_folder: bool) -> bool:
    """Whether ``output`` is or will be a folder for ``count`` files."""
    if output.exists():
        return output.is_dir()
    return into_folder or (count > 1 and output.suffix.lower() != ".gguf")


def check_targets(targets: Sequence[Path], inputs: Sequence[str], *, force: bool, listed: Path | None) -> None:
    """Refuse what cannot or must not be written, before any work; ``listed`` is a list of checksums to add to.

    Raises what writer.check_targets and Checksums raise, and UsageError where the list has the name of an output.
    """
    writer.check_targets(targets, inputs, force=force)
    if listed is None:
        return
    writer.check_targets([listed], inputs, force=True)
    if os.path.realpath(listed) in map(os.path.realpath, targets):
        raise UsageError("an output has the same name", where="--checksums")
    if listed.exists():
        checksums.Checksums(listed)  # whatever else this file is, nothing is added to it


@contextmanager
def made_folder(path: Path | None) -> Iterator[None]:
    """Make a folder, where there is one to be made; it is taken away again where what goes into it is refused.

    Raises OutputFailed.
    """
    if path is None:
        yield
        return
    try:
        path.mkdir(exist_ok=True)  # another part may have made it meanwhile
    except OSError as error:
        raise OutputFailed(
            error.strerror or "cannot be created", where=str(path), hint="choose another folder with -o"
        ) from error
    with no_empty_folder(path, there=False):
        yield


@contextmanager
def no_empty_folder(path: Path | None, *, there: bool | None = None) -> Iterator[None]:
    """Take a folder away again that was not there before (``there``; None: look now), where what was to fill it fails
    and has left nothing."""
    there = (path is None or path.exists()) if there is None else there
    try:
        yield
    except BaseException:
        if path is not None and not there:
            with suppress(OSError):  # not empty: it is another part's
                path.rmdir()
        raise
