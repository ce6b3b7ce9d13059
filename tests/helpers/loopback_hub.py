"""A hub on this machine that the real `huggingface_hub` reads from and uploads to, through HF_ENDPOINT.

    with LoopbackHub() as hub:
        hub.store.create("org/name", folder)
        hub.use(monkeypatch, tmp_path / "home")            # this process; hub.environment(home) for others

It speaks what the client asks for: model info, trees, paths, resolve with redirects to a second server (as the real
hub's large files lie elsewhere), ranges, etags, LFS hashes, gated and private repositories; creating repositories,
preupload, LFS batch with PUT (whole or in parts), commits. ``faults`` are answers that go wrong, ``log`` is every
request.
`python tests/helpers/loopback_hub.py FOLDER org/name --rate 300 --latency 30` serves a folder until it is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers.hub_routes import ROUTES, Answer, Refusal, Request
from helpers.hub_store import Blob, Store

if TYPE_CHECKING:
    import pytest

_PIECE = 256 << 10  # bytes that are sent at a time where the rate is limited
_SECRET = "Signature=only-for-the-one-who-asked"  # of an address of the second server: never to be shown


@dataclass
class Fault:
    """What goes wrong with the next ``times`` answers to requests whose `METHOD path` has ``match``.

    ``status`` refuses; ``cut`` closes the connection behind so many bytes of the body, ``stall`` waits so many seconds
    there (or before the answer); ``total`` is a wrong length of the file in Content-Range; ``whole`` forgets the range.
    """

    match: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: float = 0.0
    total: int | None = None
    whole: bool = False
    flip: bool = False  # the first byte of the body is another one


@dataclass
class Logged:
    """One request, and what is answered, noted before it goes out. ``sent``: bytes of the body that went out, then."""

    method: str
    path: str
    range: tuple[int, int] | None
    authorized: bool
    status: int
    sent: int
    elsewhere: bool  # asked of the second server


class Bucket:
    """Bytes per second for all connections together; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may go."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now - 0.005, self._free)  # sleeping is not exact: what was slept too long is made up for
            self._free = start + count / self._rate
        wait = self._free - time.monotonic() if self._free > now else 0.0
        if wait > 0:
            time.sleep(wait)


class LoopbackHub:
    """Two servers: the hub, and the one that its large files are redirected to. ``rate`` in bytes per second for both,
    ``latency`` in seconds before every answer."""

    def __init__(self, *, rate: float | None = None, latency: float = 0.0, redirects: bool = True) -> None:
        self.store = Store()
        self.faults: list[Fault] = []
        self.log: list[Logged] = []
        self.latency, self.redirects = latency, redirects
        self.bucket = Bucket(rate)
        self._lock = threading.Lock()
        self._servers = [_Server(("127.0.0.1", 0), _handler(self, elsewhere)) for elsewhere in (False, True)]
        self.url, self.files_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in self._servers]

    def __enter__(self) -> LoopbackHub:
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.close_connections()
            server.server_close()
            thread.join()

    # ---- how a client gets here

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The variables for a process that is to use this hub and no other."""
        return environment(self.url, home, token)

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = None) -> None:
        """The same for this process, whether the client was imported before or not."""
        from huggingface_hub import constants
        from huggingface_hub.utils import close_session

        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment(home, token).items():
            monkeypatch.setenv(name, value)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        changed = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        }
        for name, value in changed.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        close_session()  # connections of an earlier hub

    # ---- what it did

    def ranges(self, suffix: str = "") -> list[tuple[int, int]]:
        """The ranges that were served, of files whose request ends so."""
        return [one.range for one in self.log if one.range and one.status == 206 and one.path.endswith(suffix)]

    def sent(self) -> int:
        """Bytes of all bodies of the second server."""
        return sum(one.sent for one in self.log if one.elsewhere)

    def take_fault(self, line: str) -> Fault | None:
        """The fault for this request, which is then used up once."""
        with self._lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
        return None

    def note(self, logged: Logged) -> None:
        with self._lock:
            self.log.append(logged)

    def location(self, sha256: str, name: str) -> str:
        """The signed address of a large file."""
        return f"{self.files_url}/files/{sha256}/{Path(name).name}?Expires=9999999999&{_SECRET}"


def environment(url: str, home: Path, token: str | None = None) -> dict[str, str]:
    """The variables for a process whose hub is at ``url``; what it keeps goes to ``home``."""
    found = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        found[name] = "1"
    return found | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": ""} | ({"HF_TOKEN": token} if token else {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, address: object) -> None:
        """Clients go away; that is no news."""


def _handler(hub: LoopbackHub, elsewhere: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: `log` has it."""

        def do_GET(self) -> None:
            _serve(hub, self, elsewhere)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    return Handler


def _serve(hub: LoopbackHub, handler: BaseHTTPRequestHandler, elsewhere: bool) -> None:
    """One request: its body is read, the answer found in the table of routes, sent, and noted."""
    parts = urlsplit(handler.path)
    length = int(handler.headers.get("Content-Length") or 0)
    body = handler.rfile.read(length) if length else _chunked(handler)
    authorization = handler.headers.get("Authorization", "")
    request = Request(
        hub, handler.command, unquote(parts.path), dict(parse_qsl(parts.query)), handler.headers, body,
        authorization.removeprefix("Bearer ") or None, elsewhere,
    )  # fmt: skip
    fault = hub.take_fault(f"{handler.command} {request.path}")
    time.sleep(hub.latency + (fault.stall if fault and fault.cut is None else 0.0))
    try:
        answer = _refused(fault) if fault and fault.status else _answer(request, fault)
    except Refusal as refusal:
        answer = refusal.answer
    logged = Logged(handler.command, request.path, answer.range, bool(authorization), answer.status, 0, elsewhere)
    hub.note(logged)
    try:
        logged.sent = _send(hub, handler, answer, fault)
    except OSError:  # the client went away
        handler.close_connection = True


def _chunked(handler: BaseHTTPRequestHandler) -> bytes:
    """A body in chunks; b"" where there is none."""
    if "chunked" not in (handler.headers.get("Transfer-Encoding") or ""):
        return b""
    found = b""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        found += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return found


def _answer(request: Request, fault: Fault | None) -> Answer:
    for methods, pattern, respond in ROUTES:
        match = re.fullmatch(pattern, request.path)
        if match and request.method in methods:
            answer = respond(request, **match.groupdict())
            return _ranged(request, answer, fault) if isinstance(answer.body, Blob) else answer
    raise Refusal(404, message=f"no such route: {request.method} {request.path}")


def _refused(fault: Fault) -> Answer:
    return Answer(fault.status or 500, {"error": "something went wrong"}, dict(fault.headers))


def _ranged(request: Request, answer: Answer, fault: Fault | None) -> Answer:
    """The part of a file that was asked for."""
    blob = answer.body
    assert isinstance(blob, Blob)
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    answer.headers["Accept-Ranges"] = "bytes"
    if wanted is None or (fault and fault.whole):
        answer.range = (0, blob.size) if wanted is None else None
        return answer
    start, stop = int(wanted[1]), min(int(wanted[2]) + 1 if wanted[2] else blob.size, blob.size)
    if start >= blob.size:
        raise Refusal(416, headers={"Content-Range": f"bytes */{blob.size}"})
    total = fault.total if fault and fault.total is not None else blob.size
    answer.status, answer.range = 206, (start, stop)
    answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
    return answer


def _send(hub: LoopbackHub, handler: BaseHTTPRequestHandler, answer: Answer, fault: Fault | None) -> int:
    """Head and body; the bytes of the body that went out."""
    blob = answer.body if isinstance(answer.body, Blob) else Blob(_text(answer.body))
    start, stop = answer.range or (0, blob.size)
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    if "Content-Length" not in answer.headers:
        handler.send_header("Content-Length", str(stop - start))
    if not isinstance(answer.body, Blob):
        handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    if handler.command == "HEAD":
        return 0
    end = stop if fault is None or fault.cut is None else min(start + fault.cut, stop)
    sent = _send_body(hub, handler, blob, start, end, flip=bool(fault and fault.flip))
    if fault is not None and fault.cut is not None:
        time.sleep(fault.stall)
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
    return sent


def _send_body(
    hub: LoopbackHub, handler: BaseHTTPRequestHandler, blob: Blob, start: int, stop: int, *, flip: bool
) -> int:
    file = None if flip else blob.open()
    if file is None:
        for piece in blob.pieces(start, stop):
            hub.bucket.take(len(piece))
            handler.wfile.write(bytes([piece[0] ^ 1]) + piece[1:] if flip and piece else piece)
            flip = False
        return stop - start
    with file:
        done = start
        while done < stop:
            count = min(_PIECE, stop - done)
            hub.bucket.take(count)
            done += handler.connection.sendfile(file, done, count)  # type: ignore[arg-type]
    return stop - start


def _text(body: object) -> bytes:
    return body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()


def main() -> None:
    """Serve one folder until standard input ends; the address goes to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--rate", type=float, help="MB/s of all connections together")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds before every answer")
    parser.add_argument("--cuts", type=int, default=0, help="connections that break after 1 MB")
    given = parser.parse_args()
    rate = given.rate * 1e6 if given.rate else None
    with LoopbackHub(rate=rate, latency=given.latency / 1e3) as hub:
        hub.store.create(given.name, given.folder)
        for commit in hub.store.repositories[given.name].commits.values():
            for blob in commit.files.values():
                _ = blob.sha256
        hub.faults = [Fault("GET /files/", times=given.cuts, cut=1_000_000)] if given.cuts else []
        print(hub.url, flush=True)
        sys.stdin.read()
        print(json.dumps({"sent": hub.sent(), "requests": len(hub.log)}), flush=True)
        os._exit(0)  # whoever still reads has been told


if __name__ == "__main__":
    main()
