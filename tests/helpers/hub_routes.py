"""The loopback hub's answers, one function per route. A route's errors carry the codes that the client looks at."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from helpers.hub_store import Blob, Commit, Repository, in_lfs

if TYPE_CHECKING:
    from helpers.loopback_hub import LoopbackHub

PART_BYTES = 8 << 20  # larger uploads are asked for in parts of this size


@dataclass(frozen=True)
class Request:
    hub: LoopbackHub
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    token: str | None
    elsewhere: bool  # at the second server

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def account(self) -> str | None:
        """Whose token it is."""
        return self.hub.store.tokens.get(self.token or "")


@dataclass
class Answer:
    """``body``: a file, bytes, or what becomes JSON. ``range``: of the file, where part of it was asked for."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    range: tuple[int, int] | None = None


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        code: str = "",
        message: str = "",
        headers: Mapping[str, str] | None = None,
        **more: str,
    ) -> None:
        super().__init__(message)
        told = {name: value for name, value in (("X-Error-Code", code), ("X-Error-Message", message)) if value}
        self.answer = Answer(status, {"error": message or code, **more}, told | dict(headers or {}))


def _repository(request: Request, name: str, *, content: bool = True) -> Repository:
    """The repository, for a reader who may read it (``content``: its files, not only that it is there)."""
    if request.token and request.account is None:
        raise Refusal(401, message="Invalid credentials in Authorization header")
    found = request.hub.store.repositories.get(name)
    allowed = found is not None and (found.reads is None or request.token in found.reads)
    if found is None or (found.private and not allowed):
        raise Refusal(404 if request.token else 401, "RepoNotFound", "Repository not found")
    if content and not allowed:
        message = f"Access to model {name} is restricted and you are not in the authorized list. Visit the page to ask."
        raise Refusal(403 if request.token else 401, "GatedRepo", message)
    return found


def _commit(repository: Repository, revision: str) -> Commit:
    found = repository.find(revision)
    if found is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return found


# ---- reading


def model_info(request: Request, name: str, revision: str = "main") -> Answer:
    repository = _repository(request, name, content=False)
    commit = _commit(repository, revision)
    blobs = "blobs" in request.query
    siblings = [
        {"rfilename": file, **(_entry(repository, file, blob) if blobs else {})} for file, blob in commit.files.items()
    ]
    return Answer(
        200,
        {
            "_id": "0" * 24, "id": name, "modelId": name, "sha": commit.oid, "siblings": siblings, "tags": [],
            "private": repository.private, "gated": "manual" if repository.gated else False, "downloads": 0, "likes": 0,
        },
    )  # fmt: skip


def _entry(repository: Repository, file: str, blob: Blob) -> dict[str, object]:
    found: dict[str, object] = {"size": repository.size(file, blob), "blobId": blob.oid}
    if in_lfs(file, blob.size):
        found["lfs"] = {
            "sha256": repository.sha256(file, blob),
            "size": repository.size(file, blob),
            "pointerSize": 134,
        }
    return found


def _tree_entry(repository: Repository, file: str, blob: Blob) -> dict[str, object]:
    found: dict[str, object] = {"type": "file", "path": file, "oid": blob.oid, "size": repository.size(file, blob)}
    if in_lfs(file, blob.size):
        found["lfs"] = {"oid": repository.sha256(file, blob), "size": repository.size(file, blob), "pointerSize": 134}
    return found


def tree(request: Request, name: str, revision: str, path: str = "") -> Answer:
    repository = _repository(request, name)
    commit, prefix = _commit(repository, revision), f"{path}/" if path else ""
    inside = {file: blob for file, blob in commit.files.items() if file.startswith(prefix)}
    if path and not inside:
        raise Refusal(404, "EntryNotFound", f"{path} does not exist")
    folders = sorted({f"{prefix}{file[len(prefix) :].split('/')[0]}" for file in inside if "/" in file[len(prefix) :]})
    everything = request.query.get("recursive", "").lower() in ("true", "1")
    found = [_tree_entry(repository, f, b) for f, b in inside.items() if everything or "/" not in f[len(prefix) :]]
    return Answer(200, [*({"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders), *found])


def paths_info(request: Request, name: str, revision: str) -> Answer:
    repository = _repository(request, name)
    commit = _commit(repository, revision)
    given = (
        request.json.get("paths") if request.body.startswith(b"{") else parse_qs(request.body.decode()).get("paths", [])
    )
    return Answer(200, [_tree_entry(repository, f, b) for f, b in commit.files.items() if f in given])


def references(request: Request, name: str) -> Answer:
    repository = _repository(request, name)
    branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in repository.references.items()]
    return Answer(200, {"branches": branches, "tags": [], "converts": []})


def resolve(request: Request, name: str, revision: str, path: str) -> Answer:
    """A file; a large one lies at the second server, with its hash and size said on the way."""
    repository = _repository(request, name)
    commit = _commit(repository, revision)
    headers = {"X-Repo-Commit": commit.oid}
    blob = commit.files.get(path)
    if blob is None:
        raise Refusal(404, "EntryNotFound", f"{path} does not exist", headers)
    if not in_lfs(path, blob.size):
        return Answer(200, blob, headers | {"ETag": f'"{blob.oid}"'})
    headers |= {
        "X-Linked-Size": str(repository.size(path, blob)),
        "X-Linked-Etag": f'"{repository.sha256(path, blob)}"',
    }
    if not request.hub.redirects:
        return Answer(200, blob, headers | {"ETag": f'"{repository.sha256(path, blob)}"'})
    request.hub.store.objects.setdefault(blob.sha256, blob)
    return Answer(302, b"", headers | {"Location": request.hub.location(blob.sha256, path)})


def linked_file(request: Request, sha256: str, name: str) -> Answer:
    """At the second server: whoever has the signed address may read, and a token is a mistake."""
    if not request.elsewhere or "Signature" not in request.query:
        raise Refusal(403, message="no signature")
    if request.token:
        raise Refusal(400, message="only one way of authorization is allowed")
    blob = request.hub.store.linked(sha256)
    if blob is None:
        raise Refusal(404)
    return Answer(200, blob, {"ETag": f'"{sha256}"'})


# ---- writing


def whoami(request: Request) -> Answer:
    if request.account is None:
        raise Refusal(401, message="Invalid credentials in Authorization header")
    return Answer(200, {"type": "user", "name": request.account, "orgs": [], "auth": {"type": "access_token"}})


def _writable(request: Request, name: str) -> Repository:
    if request.account is None:
        raise Refusal(401, message="Invalid credentials in Authorization header")
    repository = _repository(request, name)
    if name.split("/")[0] != request.account:
        raise Refusal(403, message=f"You don't have the rights to write to {name}")
    return repository


def create(request: Request) -> Answer:
    if request.account is None:
        raise Refusal(401, message="Invalid credentials in Authorization header")
    owner = request.json.get("organization") or request.account
    name = f"{owner}/{request.json['name']}"
    if owner != request.account:
        raise Refusal(403, message=f"You don't have the rights to create a model under the namespace {owner}")
    url = f"{request.hub.url}/{name}"
    with request.hub.store.lock:
        if name in request.hub.store.repositories:
            raise Refusal(409, message="You already created this model repo", url=url)
        private = request.json.get("visibility") == "private" or bool(request.json.get("private"))
        request.hub.store.create(name, private=private, reads=[request.token or ""] if private else None)
    return Answer(200, {"url": url, "name": name, "id": "0" * 24})


def validate_yaml(request: Request) -> Answer:
    return Answer(200, {"errors": [], "warnings": []})


def preupload(request: Request, name: str, revision: str) -> Answer:
    """For every file whether it goes into Git or into LFS, and what is there under its name."""
    repository = _writable(request, name)
    there = _commit(repository, revision).files
    found = []
    for file in request.json["files"]:
        path, large = file["path"], in_lfs(file["path"], file["size"])
        old = there.get(path)
        oid = None if old is None else old.sha256 if large else old.oid
        found.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                **({"oid": oid} if oid else {}),
            }
        )
    return Answer(200, {"files": found, "commitOid": repository.references.get("main")})


def lfs_batch(request: Request, name: str) -> Answer:
    """Where every large file is to be put; in parts where it is larger than PART_BYTES."""
    _writable(request, name)
    objects = []
    for one in request.json["objects"]:
        oid, size = one["oid"], one["size"]
        entry: dict[str, object] = {"oid": oid, "size": size, "authenticated": True}
        if request.hub.store.linked(oid) is None:
            base, header = f"{request.hub.files_url}/upload/{oid}", {}
            if size > PART_BYTES and "multipart" in request.json.get("transfers", ()):
                count = -(-size // PART_BYTES)
                header = {"chunk_size": str(PART_BYTES)} | {
                    str(n): f"{base}/{n}?Signature=1" for n in range(1, count + 1)
                }
                base = f"{request.hub.url}/complete/{oid}"
            verify = {"href": f"{request.hub.url}/verify/{oid}"}
            entry["actions"] = {
                "upload": {"href": base if header else f"{base}?Signature=1", "header": header},
                "verify": verify,
            }
        objects.append(entry)
    return Answer(200, {"transfer": "basic", "objects": objects})


def put_object(request: Request, oid: str) -> Answer:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, message="the content does not have the hash that it was announced with")
    request.hub.store.objects[oid] = Blob(request.body)
    return Answer(200, b"")


def put_part(request: Request, oid: str, number: str) -> Answer:
    request.hub.store.parts[oid, int(number)] = request.body
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'})


def complete(request: Request, oid: str) -> Answer:
    parts = request.hub.store.parts
    numbers = [part["partNumber"] for part in request.json["parts"]]
    content = b"".join(parts.pop((oid, number)) for number in numbers)
    if hashlib.sha256(content).hexdigest() != oid:
        raise Refusal(400, message="the parts do not have the hash that they were announced with")
    request.hub.store.objects[oid] = Blob(content)
    return Answer(200, {})


def verify(request: Request, oid: str) -> Answer:
    found = request.hub.store.linked(oid)
    if found is None or found.size != request.json["size"]:
        raise Refusal(404, message="the object is not there")
    return Answer(200, {})


def commit(request: Request, name: str, revision: str) -> Answer:
    """Lines of JSON: a header, then what is added and taken away. Large files have to be there before."""
    with request.hub.store.lock:
        repository = _writable(request, name)
        files = dict(_commit(repository, revision).files)
        message = ""
        for line in request.body.splitlines():
            one = json.loads(line)
            kind, value = one["key"], one["value"]
            if kind == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent and parent != repository.references.get(revision):
                    raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
            else:
                _operation(request, files, kind, value)
        oid = repository.add(revision, files, message)
    url = f"{request.hub.url}/{quote(name)}/commit/{oid}"
    return Answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _operation(request: Request, files: dict[str, Blob], kind: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if kind == "file":
        files[path] = Blob(base64.b64decode(value["content"]))
    elif kind == "lfsFile":
        found = request.hub.store.linked(value["oid"])
        if found is None:
            raise Refusal(400, message=f"the LFS object {value['oid']} was not uploaded")
        files[path] = found
    elif kind == "deletedFile":
        if files.pop(path, None) is None:
            raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
    elif kind == "deletedFolder":
        for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[name]
    else:
        raise Refusal(400, message=f"unknown operation {Path(kind).name}")


_NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
_API = rf"/api/models/{_NAME}"
# (methods, pattern of the whole path, function); the first that fits
ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., Answer]], ...] = (
    (("GET",), r"/api/whoami-v2", whoami),
    (("POST",), r"/api/repos/create", create),
    (("POST",), r"/api/validate-yaml", validate_yaml),
    (("GET",), rf"{_API}/revision/(?P<revision>.+)", model_info),
    (("GET",), rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", tree),
    (("POST",), rf"{_API}/paths-info/(?P<revision>.+)", paths_info),
    (("GET",), rf"{_API}/refs", references),
    (("POST",), rf"{_API}/preupload/(?P<revision>.+)", preupload),
    (("POST",), rf"{_API}/commit/(?P<revision>.+)", commit),
    (("GET",), _API, model_info),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", lfs_batch),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<path>.+)", resolve),
    (("GET", "HEAD"), r"/files/(?P<sha256>[0-9a-f]{64})/(?P<name>[^/]+)", linked_file),
    (("PUT",), r"/upload/(?P<oid>[0-9a-f]{64})", put_object),
    (("PUT",), r"/upload/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)", put_part),
    (("POST",), r"/complete/(?P<oid>[0-9a-f]{64})", complete),
    (("POST",), r"/verify/(?P<oid>[0-9a-f]{64})", verify),
)
