"""What a file is that is not what it should be, by how it begins: the commonest wrong downloads.

A repository cloned without Git LFS holds pointers in place of weights, a browser saves a web page, an archive was not
unpacked. Each is a row: what it is, and the command that helps.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from quantcli import places
from quantcli.errors import GitLfsPointer

BEGINNING = 512  # bytes of a file that tell
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")
_AGAIN = "get it again: the download went wrong"
_FILE_ITSELF = "get the file itself: on the hub its address has /resolve/ in place of /blob/"
_ORIGINAL = "take the checkpoint in safetensors format (config.json and *.safetensors), or a GGUF file"


class Kind(NamedTuple):
    """What begins so. ``hint`` may name {file} and {folder}, both quoted for a shell."""

    what: str
    begins: Callable[[bytes], bool]
    hint: str


def _with(*beginnings: bytes, at: int = 0) -> Callable[[bytes], bool]:
    return lambda head: head[at:].startswith(beginnings)


def _is_page(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)


def _is_torch_archive(head: bytes) -> bool:
    return head.startswith(b"PK\3\4") and (b"/data.pkl" in head or b"/.format_version" in head)


def _is_safetensors(head: bytes) -> bool:
    return head[8:10] in (b'{"', b"{}") and head[5:8] == bytes(3)


def _is_text(head: bytes) -> bool:
    """Words and nothing else: what a server answers in place of a file."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(text.split()) > 1 and all(c.isprintable() or c in "\r\n\t" for c in text)


_KINDS = (
    Kind("a web page", _is_page, _FILE_ITSELF),
    Kind("a GGUF file", _with(b"GGUF"), "give the file itself: quantcli convert {file} -t TYPE"),
    Kind("a safetensors file", _is_safetensors, "give its folder: quantcli convert {folder} -t TYPE"),
    Kind("a PyTorch checkpoint, a pickle", _is_torch_archive, _ORIGINAL),
    Kind("a pickle", _with(b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"), _ORIGINAL),
    Kind("a zip archive", _with(b"PK\3\4", b"PK\5\6"), "unpack it: unzip {file} -d {folder}"),
    Kind("a tar archive", _with(b"ustar", at=257), "unpack it: tar -xf {file} -C {folder}"),
    Kind("a gzip archive", _with(b"\x1f\x8b"), "unpack it: tar -xzf {file} -C {folder}, or gunzip {file}"),
    Kind("an xz archive", _with(b"\xfd7zXZ\0"), "unpack it: tar -xJf {file} -C {folder}, or unxz {file}"),
    Kind("a bzip2 archive", _with(b"BZh"), "unpack it: tar -xjf {file} -C {folder}, or bunzip2 {file}"),
    Kind("a zstd archive", _with(b"\x28\xb5\x2f\xfd"), "unpack it: unzstd {file}"),
    Kind("a 7-Zip archive", _with(b"7z\xbc\xaf\x27\x1c"), "unpack it: 7z x {file}"),
    Kind("a RAR archive", _with(b"Rar!"), "unpack it: unrar x {file}"),
    Kind("an HDF5 file (Keras)", _with(b"\x89HDF\r\n"), _ORIGINAL),
    Kind("a NumPy file", _with(b"\x93NUMPY"), _ORIGINAL),
    Kind("zeros: a download that was not finished", lambda head: len(head) > 64 and not any(head), _AGAIN),
    Kind("an answer of a server", _with(b'{"error', b'{"message', b'{"detail'), _AGAIN),
)
_TEXT = Kind("a text", _is_text, _AGAIN)


def check_pointer(head: bytes, path: str | os.PathLike[str]) -> None:
    """Raises GitLfsPointer where ``head``, the beginning of the file at ``path``, is that of a pointer."""
    if head.startswith(_POINTERS):
        where = Path(os.path.abspath(path))
        raise GitLfsPointer(
            "a Git LFS pointer: run git lfs pull",
            where=os.fspath(path),
            hint=f"git -C {shlex.quote(str(where.parent))} lfs pull",
        )


def is_page(head: bytes) -> bool:
    """Whether this is the beginning of a web page."""
    return _is_page(head)


def recognise(head: bytes, path: str | os.PathLike[str], *, words: bool = False) -> tuple[str, str] | None:
    """(what the file at ``path`` is, what to do) by its first bytes; None for anything unknown.

    ``words``: say so too where it is a plain text. Raises GitLfsPointer.
    """
    check_pointer(head, path)
    kinds = (*_KINDS, _TEXT) if words else _KINDS
    kind = next((kind for kind in kinds if kind.begins(head)), None)
    if kind is None:
        return None
    whole = Path(os.path.abspath(path))
    names = {"file": shlex.quote(os.fspath(path)), "folder": shlex.quote(str(whole.parent))}
    return kind.what, kind.hint.format_map(names)


def beginning(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a regular file; nothing where it cannot be read."""
    return places.beginning(path, BEGINNING)
