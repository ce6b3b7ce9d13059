"""The hub, through `huggingface_hub` (extra `hub`): a source to the disk, files of a release to a repository."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from quantcli.sources import digests
from quantcli.sources.hub import address, client

#: what of a repository a conversion reads; never a pickle
PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "README.md", "LICENSE*")
SMALL = 32 << 20  # bytes of files whose content Git itself may hold

_Result = TypeVar("_Result")


def is_address(text: str) -> bool:
    """Whether this is hf://OWNER/NAME. Raises UsageError for one that is spelled wrong."""
    return address.parse(text) is not None


def repository_of(text: str) -> str:
    """OWNER/NAME of an address."""
    found = address.parse(text)
    assert found is not None
    return found.repository


def fetch(text: str) -> Path:
    """The folder of the repository that ``text`` names, in the client's cache: what is there is not fetched again.

    Raises MissingPackage, and what the client's errors become.
    """
    found = address.parse(text)
    assert found is not None
    hub, patterns = client.package(), list(PATTERNS)
    repository, revision = found.repository, found.revision

    def download() -> str:
        path: str = hub.snapshot_download(repository, revision=revision, allow_patterns=patterns)
        return path

    return Path(client.ask(download, str(found))) / found.inside


class Repository:
    """A repository that is uploaded to. Raises MissingPackage, and what the client's errors become."""

    def __init__(self, name: str, *, private: bool) -> None:
        self.name, self._hub = name, client.package()
        self._api = self._hub.HfApi()
        self._ask(lambda: self._api.create_repo(name, private=private, exist_ok=True))
        self.there = self._digests()

    def _digests(self) -> dict[str, str]:
        """Name -> what tells a file's content: the sha256 of large ones, Git's hash of small ones."""
        entries: list[Any] = self._ask(lambda: list(self._api.list_repo_tree(self.name, recursive=True)))
        found = {}
        for entry in entries:
            large = getattr(entry, "lfs", None)
            if large is not None:
                found[entry.path] = large["sha256"] if isinstance(large, dict) else large.sha256
            elif getattr(entry, "blob_id", None):
                found[entry.path] = entry.blob_id
        return found

    def has(self, path: Path) -> bool:
        """Whether the repository holds this very content under the file's name."""
        there = self.there.get(path.name)
        return there is not None and there in (digests.sha256([str(path)])[str(path)], _git_hash(path))

    def put(self, paths: Sequence[Path], message: str) -> None:
        """One commit with these files."""
        add = self._hub.CommitOperationAdd
        operations = [add(path_in_repo=path.name, path_or_fileobj=os.fspath(path)) for path in paths]
        self._ask(lambda: self._api.create_commit(self.name, operations, commit_message=message))

    def _ask(self, call: Callable[[], _Result]) -> _Result:
        return client.ask(call, f"hf://{self.name}")


def _git_hash(path: Path) -> str | None:
    """What Git calls a small file's content."""
    if path.stat().st_size > SMALL:
        return None
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
