"""One request for a range of bytes: over connections of our own where the way is free, else through the hub's client.

The client's connections copy every byte several times on its way, which costs more processor time than encoding some
types; ours read into the buffer. They know no proxies, and no connections that a program configured for the client.
"""

from __future__ import annotations

import http.client
import importlib
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from quantcli.sources.hub import client

MOVED = (301, 302, 303, 307, 308)


class Body(Protocol):
    """An answer. ``headers`` by name, in any case; ``read_into`` fills a part of a buffer, 0 bytes at the end."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def read_into(self, buffer: memoryview) -> int: ...


class Refused(Exception):
    """An answer that is none; ``response`` as the client's errors have it."""

    def __init__(self, response: Any) -> None:
        super().__init__("refused")
        self.response = response


@contextmanager
def get(location: str, headers: Mapping[str, str], timeout: float) -> Iterator[Body]:
    """The answer of a GET request. Raises ConnectionError, and what the client's transport raises."""
    way = _direct if _is_free(location) else _through_client
    with way(location, headers, timeout) as body:
        yield body


def elsewhere(location: str, body: Body) -> str | None:
    """Where an answer sends to; None for any other answer."""
    target = body.headers.get("Location")
    return urljoin(location, target) if body.status in MOVED and target else None


def _is_free(location: str) -> bool:
    """Whether nothing stands between, and nobody changed how the client connects."""
    made = importlib.import_module("huggingface_hub.utils._http")
    host = urlsplit(location).hostname or ""
    proxies = urllib.request.getproxies()
    return getattr(made, "_GLOBAL_CLIENT_FACTORY", None) is getattr(made, "default_client_factory", made) and (
        not {"http", "https", "all"} & proxies.keys() or bool(urllib.request.proxy_bypass(host))
    )


# ---- the client's connections


class _ClientBody:
    def __init__(self, answer: Any) -> None:
        self.status, self.headers = answer.status_code, answer.headers
        self._pieces, self._left = answer.iter_raw(), memoryview(b"")

    def read_into(self, buffer: memoryview) -> int:
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


@contextmanager
def _through_client(location: str, headers: Mapping[str, str], timeout: float) -> Iterator[Body]:
    session = client.package().utils.get_session()
    with session.stream("GET", location, headers=dict(headers), timeout=timeout, follow_redirects=False) as answer:
        yield _ClientBody(answer)


# ---- our own

_connections = threading.local()  # of each thread, by scheme and host


class _DirectBody:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers = answer.status, {name.title(): value for name, value in answer.getheaders()}
        self._answer = answer

    def read_into(self, buffer: memoryview) -> int:
        return self._answer.readinto(buffer)


@contextmanager
def _direct(location: str, headers: Mapping[str, str], timeout: float) -> Iterator[Body]:
    split = urlsplit(location)
    kept: dict[tuple[str, str], http.client.HTTPConnection] = _connections.__dict__.setdefault("kept", {})
    key = split.scheme, split.netloc
    connection = kept.pop(key, None)
    try:
        answer = None
        if connection is not None:  # the server may have closed it since
            try:
                answer = _ask(connection, location, headers)
            except (OSError, http.client.HTTPException):
                connection.close()
        if answer is None:
            connection = _connected(split.scheme, split.netloc, timeout)
            answer = _ask(connection, location, headers)
        yield _DirectBody(answer)
        if answer.isclosed() and not answer.will_close and connection is not None:
            kept[key] = connection
            connection = None
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(type(error).__name__) from None
    finally:
        if connection is not None:
            connection.close()


def _connected(scheme: str, netloc: str, timeout: float) -> http.client.HTTPConnection:
    if scheme != "https":
        return http.client.HTTPConnection(netloc, timeout=timeout)
    return http.client.HTTPSConnection(netloc, timeout=timeout, context=_trusted())


def _trusted() -> Any:
    """The certificates that the client trusts."""
    session = client.package().utils.get_session()
    module = importlib.import_module(type(session).__module__.partition(".")[0])
    return module.create_ssl_context()


def _ask(connection: http.client.HTTPConnection, location: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    split = urlsplit(location)
    connection.request("GET", split.path + (f"?{split.query}" if split.query else ""), headers=dict(headers))
    return connection.getresponse()
