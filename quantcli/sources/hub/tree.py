"""A commit of a repository as a folder: the small files lie in the client's cache, the large ones are mounted there."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantcli import places
from quantcli.errors import BadAnswer, MissingFile
from quantcli.places import Bytes
from quantcli.sources.hub import client
from quantcli.sources.hub.address import Address
from quantcli.sources.hub.blocks import Blocks
from quantcli.sources.hub.ranges import Ranges
from quantcli.sources.hub.remote import RemoteFile

_SMALL = re.compile(r".*\.(?:json|jsonl|txt|model|jinja|tiktoken)|README\.md", re.DOTALL)
_LARGEST_SMALL = 256 << 20  # what a checkpoint's tokenizer.json may have
_BELOW = ("additional_chat_templates",)  # folders whose files are read with those above them
_MAIN = "main"
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AT_ONCE = 8  # small files
_FIRST_ATTEMPTS = 4  # nothing is lost yet where the hub does not answer: it is said soon
_ATTEMPTS = 2  # of the client, which itself tries again
_SHOWN = 6


@dataclass
class Tree:
    """A commit. ``root``: its folder in the client's cache; ``files``: what is far away, by name."""

    address: Address
    commit: str
    root: Path
    files: dict[str, RemoteFile] = field(default_factory=dict)
    fetched: set[str] = field(default_factory=set)  # folders whose small files are here


_trees: dict[tuple[str, str, str | None], Tree] = {}  # a revision is resolved once per process


def find(address: Address) -> Path:
    """The path that ``address`` has here; its small files are there, the others are mounted.

    Raises MissingPackage, MissingFile (repository, revision, folder), NoAccess, Unreachable, BadAnswer.
    """
    if client.offline():
        return _in_cache(address)
    key = client.constants().ENDPOINT, address.repository, address.revision
    tree = _trees.get(key)
    if tree is None:
        tree = _trees[key] = _ask(Address(address.repository, address.revision))
    folder = _folder(tree, address)
    if folder not in tree.fetched:
        _fetch_small(tree, folder)
        tree.fetched.add(folder)
    return tree.root / address.inside


def forget() -> None:
    """Resolve every revision anew."""
    for tree in _trees.values():
        places.unmount(tree.root)
    _trees.clear()


# ---- at the hub


def _ask(address: Address) -> Tree:
    """The commit and its files, all large ones mounted."""
    hub, where = client.package(), str(address)
    info = client.ask(
        lambda: hub.HfApi().model_info(address.repository, revision=address.revision, files_metadata=True),
        where,
        attempts=_FIRST_ATTEMPTS,
    )
    commit = str(info.sha or "")
    if not _COMMIT.fullmatch(commit):
        raise BadAnswer("the hub names no commit", where=where, hint="look at HF_ENDPOINT: is it a hub?")
    tree = Tree(address, commit, _root(address.repository) / "snapshots" / commit)
    blocks = Blocks()
    for file in info.siblings or ():
        name, size = file.rfilename, file.size
        if not _safe(name) or not isinstance(size, int) or size < 0:
            continue
        sha256 = None if file.lfs is None else _text(file.lfs, "sha256")
        ranges = Ranges(address.repository, commit, name, size, sha256, f"{where}/{name}")
        tree.files[name] = RemoteFile(ranges, blocks)
    mounted = {name: _Small(tree, name) if _is_small(name, file.size) else file for name, file in tree.files.items()}
    places.mount(tree.root, where, mounted)
    return tree


def _is_small(name: str, size: int) -> bool:
    """Whether the file is one that goes through the client's cache."""
    return bool(_SMALL.fullmatch(name.rpartition("/")[2])) and size <= _LARGEST_SMALL


@dataclass(frozen=True)
class _Small:
    """A small file that was not fetched yet. `places.Elsewhere`."""

    tree: Tree
    name: str
    checked: bool = False

    @property
    def size(self) -> int:
        return self.tree.files[self.name].size

    @property
    def sha256(self) -> str | None:
        return self.tree.files[self.name].sha256

    def open(self) -> Bytes:
        """Brings it into the client's cache."""
        _fetch_file(self.tree, self.name)
        return places.Descriptor(self.tree.root / self.name)

    def prepare(self) -> None:
        """It comes when it is opened."""


def _safe(name: object) -> bool:
    """Whether a name from the hub stays in the folder."""
    return isinstance(name, str) and name.isprintable() and not any(p in ("", ".", "..") for p in name.split("/"))


def _text(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return found if isinstance(found, str) else None


def _root(repository: str) -> Path:
    """The folder of a repository in the client's cache."""
    named = importlib.import_module("huggingface_hub.file_download").repo_folder_name
    return Path(client.constants().HF_HUB_CACHE).absolute() / str(named(repo_id=repository, repo_type="model"))


def _folder(tree: Tree, address: Address) -> str:
    """The folder of ``address`` in the repository: its own, or that of the file. Raises MissingFile."""
    inside = address.inside
    if inside in tree.files:
        return inside.rpartition("/")[0]
    if not inside or any(name.startswith(f"{inside}/") for name in tree.files):
        return inside
    others = sorted({name.split("/")[0] for name in tree.files if "/" in name or name.endswith(".gguf")})
    hint = f"it has {', '.join(others[:_SHOWN])}" if others else f"leave it out: {tree.address}"
    raise MissingFile("the repository has no such file or folder at this revision", where=str(address), hint=hint)


def _fetch_small(tree: Tree, folder: str) -> None:
    """Bring the small files of ``folder`` into the cache, several at a time."""
    names = list(_small_names(tree.files, folder))
    first = next((name for name in names if name.endswith("config.json")), None)
    if first is not None:  # alone: one refusal is enough, and by the revision's name the cache remembers its commit
        _fetch_file(tree, first, tree.address.revision or _MAIN)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: _fetch_file(tree, name), names))


def _small_names(files: Mapping[str, RemoteFile], folder: str) -> Iterable[str]:
    above = {folder, *(f"{folder}/{name}" if folder else name for name in _BELOW)}
    for name, file in files.items():
        where, _, own = name.rpartition("/")
        if where in above and _is_small(own, file.size):
            yield name


def _fetch_file(tree: Tree, name: str, revision: str | None = None) -> None:
    """One small file, through the client's cache. Raises BadAnswer where its content is not what was announced."""
    hub, ranges = client.package(), tree.files[name].ranges
    there = (tree.root / name).is_file()
    client.ask(
        lambda: hub.hf_hub_download(
            tree.address.repository, name, revision=revision or tree.commit, endpoint=client.constants().ENDPOINT
        ),
        ranges.where,
        attempts=_ATTEMPTS,
    )
    path = tree.root / name
    if there or ranges.sha256 is None or not path.is_file():
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != ranges.sha256:
        path.resolve().unlink()  # the cache shares contents: it would be taken for good next time
        path.unlink(missing_ok=True)
        raise BadAnswer(
            "what came does not have the sha256 that the hub announces", where=ranges.where, hint="try again"
        )


# ---- without the hub


def _in_cache(address: Address) -> Path:
    """The folder of a commit that is in the cache, whole or in part. Raises Unreachable."""
    root, revision = _root(address.repository), address.revision or _MAIN
    reference = root / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = root / "snapshots" / commit
    path = folder / address.inside
    if not _COMMIT.fullmatch(commit) or not places.exists(path):
        raise client.stays_offline(str(address))
    missing = [name for name in _weights(path if path.is_dir() else path.parent) if not (path / name).exists()]
    if missing and path.is_dir():
        places.mount(path, str(address), {name: _Absent(f"{address}/{name}") for name in missing})
    return path


def _weights(folder: Path) -> list[str]:
    """The files of tensors that a checkpoint in ``folder`` consists of."""
    index = folder / _INDEX
    if index.is_file():
        try:
            return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            return []  # whoever reads it says what is wrong
    return [] if any(folder.glob("*.safetensors")) else [_SINGLE]


@dataclass(frozen=True)
class _Absent:
    """A file that is at the hub, and cannot be asked for. `places.Elsewhere`."""

    where: str
    size: int = 0
    checked: bool = False
    sha256: str | None = None

    def open(self) -> Bytes:
        raise client.stays_offline(self.where)

    def prepare(self) -> None:
        """Nothing can be asked."""
