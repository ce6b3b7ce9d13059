"""What the loopback hub holds: repositories, their commits, the files of a commit. Content is in memory or in files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeAlias

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".model", ".pt", ".onnx")
LFS_BYTES = 10 << 20  # larger files are stored with Git LFS whatever their name
_PIECE = 1 << 20

Content: TypeAlias = "bytes | str | Path"


class Blob:
    """A file's content. The hashes are those of Git and of Git LFS, computed once."""

    def __init__(self, content: Content) -> None:
        self.path = content if isinstance(content, Path) else None
        self.data = b"" if isinstance(content, Path) else content.encode() if isinstance(content, str) else content
        self.size = self.path.stat().st_size if self.path is not None else len(self.data)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterable[bytes]:
        """Bytes ``start`` to ``stop``."""
        stop = self.size if stop is None else stop
        if self.path is None:
            yield self.data[start:stop]
            return
        with open(self.path, "rb") as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(_PIECE, stop - start))
                start += len(piece)
                yield piece

    def open(self) -> BinaryIO | None:
        """The file that holds it; None where it is in memory."""
        return None if self.path is None else open(self.path, "rb")

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def _hashed(self, digest: hashlib._Hash) -> str:
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def sha256(self) -> str:
        return self._hashed(hashlib.sha256())

    @cached_property
    def oid(self) -> str:
        """The name that Git gives the content."""
        return self._hashed(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))


def in_lfs(name: str, size: int) -> bool:
    """Whether a file is stored with Git LFS."""
    return name.endswith(LFS_SUFFIXES) or size > LFS_BYTES


@dataclass(frozen=True)
class Commit:
    oid: str
    files: Mapping[str, Blob]
    message: str = ""


@dataclass
class Repository:
    """``reads`` and ``writes``: the tokens that may; None: everybody. ``gated``: without access the hub says so.

    ``sizes`` and ``hashes``, by file name, are what the hub claims where that is not the truth.
    """

    name: str
    reads: frozenset[str] | None = None
    gated: bool = False
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, Content], message: str = "", branch: str = "main") -> str:
        """A new commit of exactly these files; its name."""
        return self.add(branch, {name: Blob(content) for name, content in files.items()}, message)

    def add(self, branch: str, files: Mapping[str, Blob], message: str) -> str:
        """A new commit on ``branch``; its name depends on all that it holds."""
        names = "".join(f"{name}\0{blob.oid}\n" for name, blob in sorted(files.items()))
        oid = hashlib.sha1(
            f"{self.references.get(branch)}\n{message}\n{names}".encode(), usedforsecurity=False
        ).hexdigest()
        self.commits[oid] = Commit(oid, dict(files), message)
        self.references[branch] = oid
        return oid

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag or a name of 40 digits."""
        found = self.references.get(revision.removeprefix("refs/heads/").removeprefix("refs/tags/"), revision)
        return self.commits.get(found)

    def size(self, name: str, blob: Blob) -> int:
        """What the hub says of the file's size."""
        return self.sizes.get(name, blob.size)

    def sha256(self, name: str, blob: Blob) -> str:
        """What the hub says of the file's content."""
        return self.hashes.get(name) or blob.sha256


@dataclass
class Store:
    """All repositories, the large files that were uploaded, and whose token is whose."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, Blob] = field(default_factory=dict)  # of Git LFS, by sha256
    tokens: dict[str, str] = field(default_factory=lambda: {"hf_test_token": "org"})  # token -> account
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)  # of uploads in several pieces
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(
        self,
        name: str,
        files: Mapping[str, Content] | Path | None = None,
        *,
        reads: Iterable[str] | None = None,
        gated: bool = False,
        private: bool = False,
    ) -> Repository:
        """A repository with one commit of ``files``: content by name, or a folder whose files stay where they are."""
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p for p in sorted(files.rglob("*")) if p.is_file()}
        made = Repository(name, None if reads is None else frozenset(reads), gated, private)
        made.commit(files or {".gitattributes": "*.safetensors filter=lfs\n"}, "initial commit")
        self.repositories[name] = made
        return made

    def linked(self, sha256: str) -> Blob | None:
        """The large file of that hash, uploaded or in any commit."""
        if sha256 in self.objects:
            return self.objects[sha256]
        for repository in self.repositories.values():
            for commit in repository.commits.values():
                for name, blob in commit.files.items():
                    if in_lfs(name, blob.size) and blob.sha256 == sha256:
                        self.objects[sha256] = blob
                        return blob
        return None
