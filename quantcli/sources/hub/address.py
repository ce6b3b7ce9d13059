"""What a user types for a repository of the hub, and what is close to it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from quantcli.errors import UnsupportedFile, UsageError

_SCHEME = re.compile(r"hf:/+(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_PAGE = re.compile(r"https?:/+(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
# Written for it by people who remember it roughly; where a file has such a name, it is meant.
_ROUGHLY = re.compile(
    r"(?:hf:|hf\.co/|(?:www\.)?huggingface\.co/|huggingface:/*|hub:/+|hf-hub:/*|https?:hf/+)(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w][\w./+-]{0,199}", re.ASCII)
_PULL = re.compile(r"refs/(?:pr|convert)/[\w.-]+")
_FILES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".dat", ".txt", ".jinja", ".model", ".ckpt", ".onnx")
_VIEWS = ("tree", "blob", "resolve", "raw", "commit")
_OTHERS = {"datasets": "a data set", "spaces": "a space", "buckets": "a bucket", "collections": "a collection"}
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")


class Address(NamedTuple):
    """A repository, the revision that was asked for (None: its main branch), and a folder or file in it."""

    repository: str
    revision: str | None = None
    inside: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf://{self.repository}{revision}" + (f"/{self.inside}" if self.inside else "")


def parse(path: str | os.PathLike[str]) -> Address | None:
    """The address that ``path`` is, None for a path of this machine. Raises UsageError for one that is spelled wrong,
    UnsupportedFile for what is on the hub and no model."""
    text = os.fspath(path)
    if found := _SCHEME.fullmatch(text):
        return _address(found["rest"], text)
    if found := _PAGE.fullmatch(text):
        return _page(found["rest"], text)
    found = _ROUGHLY.fullmatch(text)
    if found is None or os.path.lexists(text):
        return None
    meant = _page(found["rest"], text, host=False) if "/" in found["rest"] else _address(found["rest"], text)
    raise UsageError("no address of the hub", where=without_tokens(text), hint=f"spell it so: {meant}")


def spelled(path: str | os.PathLike[str]) -> str:
    """``path`` as it is said: an address with both its slashes, whatever became of them on the way."""
    text = os.fspath(path)
    found = _SCHEME.fullmatch(f"{text}/" if text.lower() == "hf:" else text)
    return without_tokens(f"hf://{found['rest']}" if found else re.sub(r"^(https?):/+", r"\1://", text))


def suggestion(path: str | os.PathLike[str]) -> str | None:
    """The address that may be meant by a ``path`` where nothing is; None where it looks like a path of this machine."""
    text = os.fspath(path)
    if not _PLAIN.fullmatch(text) or text.lower().endswith(_FILES) or os.path.isdir(text.split("/")[0]):
        return None
    return f"hf://{text}"


def without_tokens(text: str) -> str:
    """``text`` without anything that looks like a token of the hub."""
    return _TOKEN.sub("hf_***", text)


def _address(rest: str, text: str) -> Address:
    """`org/name@revision/inside`; a name without owner is one of the first, such as gpt2."""
    rest = unquote(rest.strip().strip("/")) if "%" not in rest else rest.strip().strip("/")
    _check_kind(rest, text)
    first, _, behind = rest.partition("@")
    if "@" in rest and first.count("/") <= 1:
        repository, inside = first, behind
        pull = _PULL.match(behind)
        revision, _, inside = (pull[0], "", behind[pull.end() :].lstrip("/")) if pull else behind.partition("/")
        return _checked(repository, unquote(revision), inside, text)
    parts = rest.split("/")
    return _checked("/".join(parts[:2]), None, "/".join(parts[2:]), text)


def _page(rest: str, text: str, host: bool = True) -> Address:
    """The address of a page: `huggingface.co/org/name/tree/revision/inside`."""
    split = urlsplit(f"//{rest}" if host else f"//huggingface.co/{rest}")
    if split.username is not None or split.password is not None:
        raise UsageError(
            "an address with a name or a password in it",
            hint="give the token in the variable HF_TOKEN, and the address without it",
        )
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    if split.netloc.lower() not in (*_HOSTS, endpoint.netloc.lower() or _HOSTS[0]):
        raise UnsupportedFile(
            "a web address; what is read from afar is the hub",
            where=spelled(text.split("?")[0]),
            hint="download it, or give a repository of the hub: hf://org/name",
        )
    path = unquote(split.path).strip("/")
    _check_kind(path, text)
    parts = path.split("/")
    if len(parts) < 3 or parts[2] not in _VIEWS:
        return _checked("/".join(parts[:2]), None, "/".join(parts[2:]), text)
    behind = "/".join(parts[3:])
    pull = _PULL.match(behind)
    revision, _, inside = (pull[0], "", behind[pull.end() :].lstrip("/")) if pull else behind.partition("/")
    return _checked("/".join(parts[:2]), revision or None, inside, text)


def _check_kind(rest: str, text: str) -> None:
    first = rest.split("/")[0].lower()
    if first in _OTHERS:
        raise UnsupportedFile(
            f"{_OTHERS[first]} of the hub, not a model",
            where=spelled(text),
            hint="give the model's repository: hf://org/name",
        )


def _checked(repository: str, revision: str | None, inside: str, text: str) -> Address:
    """Raises UsageError where a part cannot be what it should be."""
    parts = repository.split("/")
    wrong = None
    if not all(_PART.fullmatch(part) for part in parts) or ".." in repository:
        wrong = "no name of a repository"
    elif revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        wrong = "no name of a revision behind the @"
    elif any(part in ("", ".", "..") for part in inside.split("/")) and inside:
        wrong = "no folder of a repository"
    if wrong:
        raise UsageError(
            wrong, where=spelled(text), hint="it is hf://org/name, hf://org/name@revision or hf://org/name/folder"
        )
    return Address(repository, revision, inside)
