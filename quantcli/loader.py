"""A path -> the models in it, whatever lies there.

A checkpoint folder goes through its family; a GGUF file is taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from quantcli import container, families, places
from quantcli.container import foreign
from quantcli.errors import PickleCheckpoint, UnsupportedFile, UsageError
from quantcli.model import Model
from quantcli.sources import digests, ways
from quantcli.sources.checkpoint import Checkpoint, hub_commit
from quantcli.sources.gguf import open_gguf

_CHECKPOINT_SUFFIXES = (".safetensors", ".json", ".model", ".jinja")
_PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")


@dataclass(slots=True, eq=False, repr=False)
class Models:
    """What lies at one path: ``text`` is the language model, ``projector`` what stands before it, where asked for."""

    text: Model
    projector: Model | None = None

    @property
    def every(self) -> list[Model]:
        """All models, the language model first."""
        return [self.text] if self.projector is None else [self.text, self.projector]

    def close(self) -> None:
        """Close the sources' files."""
        for model in self.every:
            model.close()

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def open_models(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
    projector: bool = False,
    image_break: bool = False,
    merge: Merge | None = None,
    put_off: bool = False,
) -> Models:
    """Open the checkpoint folder or GGUF file ``path``: headers, configuration and vocabulary, not the weights.

    The three options say what a checkpoint does not, and so make no sense for a GGUF (UsageError). ``projector``: that
    of the checkpoint, too (``image_break``: see `families.projectors.load`); ``merge``: an adapter that its tensors are
    changed by; ``put_off``: a vocabulary that no tensor depends on waits for `Model.read_vocabulary`. Raises
    MissingFile, UnsupportedFile, MalformedFile and whatever families and vocabularies raise. Close what was opened.
    """
    path = ways.find(path)
    if places.is_folder(path):
        with _opened(path, merge) as checkpoint:
            text = families.load_checkpoint(
                checkpoint,
                architecture=architecture,
                pre_tokenizer=pre_tokenizer,
                chat_template=chat_template,
                alone=not projector,
                put_off=put_off,
            )
            beside = families.load_projector(checkpoint, image_break) if projector else None
        models = Models(text, beside)
        for model in models.every:
            _describe(model, checkpoint, merge)
        return models
    _explain_other_files(path)
    for_checkpoints = {
        "--architecture": architecture,
        "--pre-tokenizer": pre_tokenizer,
        "--mmproj": projector,
        "--merge-lora": merge,
    }
    return Models(_open_file(path, [name for name, value in for_checkpoints.items() if value], chat_template))


def _open_file(path: str | os.PathLike[str], refused: list[str], chat_template: str | None) -> Model:
    """The model in a GGUF file. Raises UsageError for options that are for checkpoints."""
    if refused:
        raise UsageError(f"{refused[0]} is for checkpoints, and this is a GGUF file", where=os.fspath(path))
    model = open_gguf(path)
    _record_commit(model, Path(os.path.abspath(path)))
    if chat_template is not None:
        model.metadata["tokenizer.chat_template"] = container.string(chat_template)
    return model


def open_model(path: str | os.PathLike[str]) -> Model:
    """The language model at ``path``; see `open_models`."""
    return open_models(path).text


def open_projector(path: str | os.PathLike[str], merge: Merge | None = None, *, image_break: bool = False) -> Model:
    """The projector of the checkpoint folder ``path`` alone; see `open_models`."""
    path = ways.find(path)
    if not places.is_folder(path):
        _explain_other_files(path)
        raise UsageError("--mmproj is for checkpoints: a GGUF file holds one model", where=os.fspath(path))
    with _opened(path, merge) as checkpoint:
        model = families.load_projector(checkpoint, image_break)
    _describe(model, checkpoint, merge)
    return model


def open_adapter(path: Path, base: Path, architecture: str | None = None) -> Model:
    """The LoRA adapter in the folder ``path`` for the model whose configuration lies in the folder ``base``.

    Raises what `families.adapters.load.load_adapter` raises. `Model.close` closes it.
    """
    from quantcli.families.adapters.load import load_adapter
    from quantcli.sources.adapter import Adapter

    path, base = ways.find(path), ways.find(base)
    for folder, hint in (
        (path, "give the adapter's folder, with adapter_config.json and adapter_model.safetensors"),
        (base, "its config.json and tokenizer are enough; at the hub it is hf://OWNER/NAME"),
    ):
        if not places.is_folder(folder):
            raise ways.missing(folder, "no such folder", hint)
    adapter = Adapter(path)
    with _closed_on_error(adapter):
        model = load_adapter(adapter.sorted(), Checkpoint(base), architecture)
    model.handles = [adapter]
    return model


class Merge(NamedTuple):
    """An adapter's folder, and what its changes are multiplied by."""

    adapter: Path
    scale: float = 1.0


@contextmanager
def _opened(path: str | os.PathLike[str], merge: Merge | None) -> Iterator[Checkpoint]:
    """The checkpoint at ``path``, open; closed where something goes wrong."""
    checkpoint = Checkpoint(path)
    with _closed_on_error(checkpoint):
        if merge is not None:
            from quantcli.families.adapters.merge import merged
            from quantcli.sources.adapter import Adapter

            adapter = Adapter(ways.find(merge.adapter))
            checkpoint.beside.append(adapter)
            adapter.sorted()
            checkpoint.change = partial(merged, adapter=adapter, scale=merge.scale)
        yield checkpoint


def _describe(model: Model, checkpoint: Checkpoint, merge: Merge | None) -> None:
    """What the model is read from, and what it says of a merge."""
    model.handles = [checkpoint, *checkpoint.beside]
    _record_commit(model, checkpoint.folder)
    if not checkpoint.beside:
        return
    from quantcli.sources.adapter import CONFIG

    for adapter in checkpoint.beside:
        model.files = [*model.files, *adapter.files]
        model.notes += adapter.notes
        digest = adapter.digests((CONFIG,))[CONFIG]
        model.metadata |= {
            "quantcli.lora.name": container.string(adapter.name),
            "quantcli.lora.scale": container.f32(merge.scale if merge else 1.0),
            f"quantcli.lora.sha256.{CONFIG}": container.string(digest),
        }
        for path, digest in digests.sha256([one for one in adapter.files if one.endswith(".safetensors")]).items():
            model.metadata[f"quantcli.lora.sha256.{os.path.basename(path)}"] = container.string(digest)


def _record_commit(model: Model, path: Path) -> None:
    """The commit of the hub that the model is of, whether it was read there or from the client's cache."""
    commit = hub_commit(path)
    if commit is not None:
        model.metadata["quantcli.source.commit"] = container.string(commit)


@contextmanager
def _closed_on_error(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for one in (checkpoint, *checkpoint.beside):
            one.close()
        raise


def _explain_other_files(path: str | os.PathLike[str]) -> None:
    """What to do with a file that is clearly something else than a GGUF."""
    where = os.fspath(path)
    if places.elsewhere(path) is None and not os.path.exists(path):
        raise ways.missing(path)
    foreign.check_pointer(foreign.beginning(path), path)
    suffix = os.path.splitext(where)[1].lower()
    if suffix in _PICKLE_SUFFIXES:
        raise PickleCheckpoint(
            "a pickle: reading one runs whatever code it contains",
            where=where,
            hint="take the safetensors version of the checkpoint",
        )
    if suffix in _CHECKPOINT_SUFFIXES and places.is_file(path):
        raise UnsupportedFile(
            "a file of a checkpoint", where=where, hint=f"give the folder: {os.path.dirname(where) or '.'}"
        )
