"""A path -> `Model`, whatever lies there.

A checkpoint folder goes through its family; a GGUF file is taken as it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from quantcli.errors import MissingFile, PickleCheckpoint, UnsupportedFile, UsageError

if TYPE_CHECKING:
    from quantcli.model import Model

_CHECKPOINT_SUFFIXES = (".safetensors", ".json", ".model", ".jinja")
_PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")


def open_model(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
) -> Model:
    """Open the checkpoint folder or GGUF file ``path``: headers, configuration and vocabulary, not the weights.

    The three options say what a checkpoint does not, and so make no sense for a GGUF (UsageError). Raises MissingFile,
    UnsupportedFile, MalformedFile and whatever families and vocabularies raise. Close the model when done.
    """
    if os.path.isdir(path):
        from quantcli import families
        from quantcli.sources.checkpoint import Checkpoint

        checkpoint = Checkpoint(path)
        try:
            model = families.load_checkpoint(
                checkpoint, architecture=architecture, pre_tokenizer=pre_tokenizer, chat_template=chat_template
            )
        except BaseException:
            checkpoint.close()
            raise
        model.handles = [checkpoint]
        return model
    _explain_other_files(path)
    given = [name for name, value in (("--architecture", architecture), ("--pre-tokenizer", pre_tokenizer)) if value]
    if given:
        raise UsageError(f"{given[0]} is for checkpoints: a GGUF file says that itself", where=os.fspath(path))
    from quantcli.sources.gguf import open_gguf

    model = open_gguf(path)
    if chat_template is not None:
        from quantcli import container

        model.metadata["tokenizer.chat_template"] = container.string(chat_template)
    return model


def _explain_other_files(path: str | os.PathLike[str]) -> None:
    """What to do with a file that is clearly something else than a GGUF."""
    where = os.fspath(path)
    if not os.path.exists(path):
        looks_like_hub = where.count("/") == 1 and not where.startswith((".", "/", "~"))
        raise MissingFile(
            "no such file or folder",
            where=where,
            hint=f"to fetch it from the hub: hf download {where}" if looks_like_hub else None,
        )
    suffix = os.path.splitext(where)[1].lower()
    if suffix in _PICKLE_SUFFIXES:
        raise PickleCheckpoint(
            "a pickle: reading one runs whatever code it contains",
            where=where,
            hint="take the safetensors version of the checkpoint",
        )
    if suffix in _CHECKPOINT_SUFFIXES and os.path.isfile(path):
        raise UnsupportedFile(
            "a file of a checkpoint", where=where, hint=f"give the folder: {os.path.dirname(where) or '.'}"
        )
