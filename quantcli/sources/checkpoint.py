"""A Hugging Face checkpoint folder: its small files, its tensors, its name."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from quantcli import places
from quantcli.errors import BadConfig, MalformedFile, MissingFile, QuantcliError, UnsupportedFile
from quantcli.sources import safetensors
from quantcli.sources.config import text_part
from quantcli.sources.files import StoredTensor, inside, read_small
from quantcli.sources.gguf import is_hash
from quantcli.sources.jsonfile import LARGE_JSON, SMALL_JSON, object_in, parse, parse_object, text_in
from quantcli.sources.packed.signs import is_packed
from quantcli.sources.tensor import SourceTensor

if TYPE_CHECKING:
    from quantcli.sources.card import Yaml
    from quantcli.sources.packed import unpack

# The small files that a model is made from, and how large each may be.
_SMALL_FILES: dict[str, int] = {
    "config.json": SMALL_JSON,
    "generation_config.json": SMALL_JSON,
    "hf_quant_config.json": SMALL_JSON,
    "tokenizer.json": LARGE_JSON,
    "tokenizer.model": LARGE_JSON,
    "spiece.model": LARGE_JSON,
    "sentencepiece.bpe.model": LARGE_JSON,
    "rwkv_vocab_v20230424.txt": SMALL_JSON,
    "tokenizer.jsonl": LARGE_JSON,
    "tekken.json": LARGE_JSON,
    "tiktoken.model": SMALL_JSON,
    "qwen.tiktoken": SMALL_JSON,
    "hy.tiktoken": SMALL_JSON,
    "tokenizer_config.json": LARGE_JSON,  # may list every added token
    "special_tokens_map.json": SMALL_JSON,
    "added_tokens.json": SMALL_JSON,
    "vocab.json": LARGE_JSON,
    "merges.txt": LARGE_JSON,
    "chat_template.jinja": SMALL_JSON,
    "chat_template.json": SMALL_JSON,
}
_MODELOPT = "hf_quant_config.json"
# Files that only help: where one is broken the model is the same without it.
_HELPFUL = ("generation_config.json", "special_tokens_map.json")
_CARD = "README.md"
_LARGEST_CARD = 4 << 20
_HUB_FOLDER = re.compile(r"models--(?:(?P<owner>.+?)--)?(?P<name>.+)")

Change: TypeAlias = Callable[[list[SourceTensor]], list[SourceTensor]]


class Checkpoint:
    """The folder ``folder`` (absolute). Files are read when asked for; tensors' files stay open until ``close``.

    ``name`` is the model's name and ``owner`` the account it was published under, where the path tells. ``notes`` say
    which files were not usable and did not have to be. ``change``, set before tensors are asked for, makes others of
    them (an adapter that is merged); ``beside`` are folders that are read together with this one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises MissingFile where there is no such folder."""
        self.folder = Path(os.path.abspath(folder))
        if not places.is_folder(self.folder):
            raise MissingFile("no such folder", where=str(folder))
        if self.folder.is_dir() and not os.access(self.folder, os.R_OK | os.X_OK):
            raise MissingFile("no permission to read this folder", where=str(folder))
        self.owner, self.name = hub_name(self.folder)
        self.notes: list[str] = []
        self.change: Change | None = None
        self.beside: list[Checkpoint] = []
        self._opened: list[safetensors.SafetensorsFile] | None = None

    # ---- small files

    def bytes(self, name: str) -> bytes | None:
        """A small file's content, or None where it is missing. Raises MalformedFile where it is too large."""
        path = inside(self.folder, name)
        if not places.exists(path):
            return None
        return read_small(path, _SMALL_FILES.get(name, SMALL_JSON))

    def text(self, name: str) -> str | None:
        """The same as text (UTF-8). Raises MalformedFile with the byte where it is not."""
        raw = self.bytes(name)
        try:
            return None if raw is None else raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MalformedFile("not UTF-8", where=f"{self.folder / name}: byte {error.start}") from error

    def json(self, name: str, required: bool = False) -> object:
        """The same as parsed JSON; None where it is missing and not ``required``. Raises MalformedFile, MissingFile.

        A broken file that only helps is as one that is missing, and told in ``notes``.
        """
        raw, where = self.bytes(name), str(self.folder / name)
        if raw is None:
            if required:
                raise self._missing(name)
            return None
        if name not in _HELPFUL:
            return parse(raw, where)
        try:
            return parse_object(raw, where)
        except MalformedFile as error:
            note = f"{name} is left out: {error.message}"
            self.notes += [] if note in self.notes else [note]
            return None

    def _missing(self, name: str) -> QuantcliError:
        """The error for a small file that has to be there."""
        from quantcli.sources import folders  # for messages alone

        found = folders.instead_of_checkpoint(self.folder) if name == "config.json" else None
        return found or MissingFile(
            f"there is no {name} in this folder",
            where=str(self.folder),
            hint="a checkpoint folder holds config.json, *.safetensors and tokenizer files",
        )

    @cached_property
    def config(self) -> dict[str, object]:
        """config.json, which has to be there."""
        raw = self.bytes("config.json")
        if raw is None:
            raise self._missing("config.json")
        return parse_object(raw, str(self.folder / "config.json"))

    @cached_property
    def card(self) -> dict[str, Yaml]:
        """The front matter of README.md (license, base_model, tags ...); {} where there is none or it is broken.

        What is wrong with it is added to ``notes``: a card is no reason not to convert.
        """
        if not self.readme:
            return {}
        from quantcli.sources import card  # most folders have none

        try:
            return card.front_matter(self.readme)
        except QuantcliError as error:
            self.notes.append(f"{_CARD} is not used: {error.message}")
            return {}

    @cached_property
    def readme(self) -> str:
        """The text of README.md; empty where there is none, or none of a usual size (told in ``notes``)."""
        path = self.folder / _CARD
        if not path.is_file():
            return ""
        try:
            return read_small(path, _LARGEST_CARD).decode("utf-8", "replace")
        except QuantcliError as error:
            self.notes.append(f"{_CARD} is not used: {error.message}")
            return ""

    def digests(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """sha256 in hex of every small file (or those of ``names``) that is there: the output says its origin so."""
        found = {name: self.bytes(name) for name in (_SMALL_FILES if names is None else names)}
        return {name: hashlib.sha256(raw).hexdigest() for name, raw in found.items() if raw is not None}

    # ---- tensors

    def _open(self) -> list[safetensors.SafetensorsFile]:
        if self._opened is None:
            self._opened = safetensors.open_files(self.folder)
        return self._opened

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name, as they are stored. Raises what `safetensors.open_safetensors` raises."""
        return safetensors.merge(self._open())

    @cached_property
    def quantization(self) -> object:
        """quantization_config of config.json, also of the language model's part of it; None where there is none."""
        found = text_part(self.config).get("quantization_config")
        found = self.config.get("quantization_config") if found is None else found
        return self._stated_apart() if found is None else found

    def _stated_apart(self) -> dict[str, object] | None:
        """What ModelOpt says in a file of its own; None where it says nothing."""
        apart = self.json(_MODELOPT)
        said = object_in(apart, "quantization")
        name = text_in(object_in(apart, "producer"), "name") or "modelopt"
        return {"quant_method": name.lower(), **said} if said else None

    @cached_property
    def packing(self) -> unpack.Packing | None:
        """How the weights are packed; None where no tensor is. The tensors decide, whatever config.json says.

        Raises UnsupportedFile for a way that no format reads, BadConfig.
        """
        if self.quantization is None and not any(map(is_packed, self.tensors.values())):
            return None
        from quantcli.sources.packed import unpack  # with all formats

        try:
            found = unpack.find(self.quantization, self.tensors)
        except (UnsupportedFile, BadConfig) as error:
            error.where = str(self.folder / error.where) if error.where == "config.json" else error.where
            raise
        if found is None and self.quantization is not None:
            stated = unpack.method(self.quantization)
            of = f" ({stated})" if stated else ""
            self.notes.append(f"quantization_config{of} of config.json is ignored: no tensor is packed")
        return found

    def check_packing(self) -> None:
        """Raises what ``packing`` raises; an unknown way of packing is said before tensors are looked at one by one."""
        _ = self.packing

    @cached_property
    def logical_tensors(self) -> list[SourceTensor]:
        """All tensors, unpacked, as llama.cpp's converter meets them: files in order, names sorted within each.

        A packed group stands where its codes do. Raises what ``tensors``, ``packing`` and `Packing.unpack` raise.
        """
        position = {name: number for number, name in enumerate(self.tensor_files)}
        stored = sorted(self.tensors.values(), key=lambda tensor: (position[tensor.file.name], tensor.name))
        found: list[SourceTensor] = [*stored] if self.packing is None else self.packing.unpack(stored)
        return found if self.change is None else self.change(found)

    @property
    def files(self) -> list[str]:
        """Absolute paths of all files that are read."""
        small = [str(self.folder / name) for name in _SMALL_FILES if (self.folder / name).is_file()]
        index = self.folder / safetensors.INDEX
        return [*(str(one.file.path) for one in self._open()), *([str(index)] if index.is_file() else []), *small]

    @property
    def tensor_files(self) -> list[str]:
        """Names of the files that hold tensors, in order: the source's shards."""
        return [one.file.name for one in self._open()]

    def check_unchanged(self) -> None:
        """Raises SourceChanged for a file of tensors that is not any more what it was when it was opened."""
        for one in self._opened or ():
            one.file.check_unchanged()

    def identities(self) -> dict[str, str]:
        """What tells each file of tensors from another version of it."""
        return {one.file.name: one.file.identity for one in self._opened or ()}

    def close(self) -> None:
        for one in self._opened or []:
            one.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at ``path``. Raises UnsupportedFile, with a hint, for a file of a checkpoint."""
    if os.path.isfile(path):
        raise UnsupportedFile(
            "a file; a checkpoint is a folder",
            where=str(path),
            hint=f"give its folder: {os.path.dirname(os.path.abspath(path))}",
        )
    return Checkpoint(path)


def hub_commit(path: Path) -> str | None:
    """The commit that an absolute ``path`` in a Hugging Face cache is of; None for any other path."""
    for folder in (path, *path.parents):
        if is_hash(folder.name) and folder.parent.name == "snapshots" and _HUB_FOLDER.fullmatch(folder.parents[1].name):
            return folder.name
    return None


def hub_name(folder: Path) -> tuple[str | None, str]:
    """(owner or None, name) of the model in an absolute ``folder``.

    A Hugging Face cache has `models--owner--name/snapshots/<commit>`; anywhere else the folder's name counts. A
    commit hash is never the name: the next folder above it is. Bytes that are not UTF-8 are left out.
    """
    for part in (folder.name, *(parent.name for parent in folder.parents)):
        part = part.encode("utf-8", "ignore").decode()
        match = _HUB_FOLDER.fullmatch(part)
        if match:
            return match["owner"], match["name"]
        if part and part != "snapshots" and not is_hash(part):
            return None, part
    return None, "model"
