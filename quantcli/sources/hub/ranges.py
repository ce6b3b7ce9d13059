"""Bytes of one file at the hub, by HTTP range: located once, checked against what was announced, tried again from the
byte where a connection broke."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from quantcli.errors import BadAnswer, MissingFile, QuantcliError, Unreachable
from quantcli.sources.hub import client, transport

_REFUSED = (401, 403)  # by the second server: its address was good for a while only
_MOST_MOVES = 20  # of one file
_PIECE = 256 << 10  # bytes that are asked of a connection at a time: what a break may lose
_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<total>\d+|\*)")
_AGAIN = "the hub or something between contradicts itself: try again, or download the files with `hf download`"


@dataclass
class Ranges:
    """The file ``name`` of a commit: ``size`` bytes, of the LFS hash ``sha256`` where there is one. ``where`` is what
    messages call it."""

    repository: str
    commit: str
    name: str
    size: int
    sha256: str | None
    where: str
    _location: str | None = None
    _moves: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self, start: int, buffer: memoryview, stop: threading.Event) -> None:
        """Fill ``buffer`` from byte ``start`` on. Returns early where ``stop`` is set.

        Raises Unreachable (no connection, or only broken ones), NoAccess, MissingFile, BadAnswer.
        """
        done = failures = refusals = 0
        while done < len(buffer) and not stop.is_set():
            before, failure, location = done, None, self._locate(stop)
            try:
                for count in _pieces(self, location, start + done, buffer[done:]):
                    done += count
                    if stop.is_set():
                        return
            except QuantcliError:
                raise
            except _Moved as moved:
                self._moved(location, moved.target)
                continue
            except Exception as error:
                failure = error
            if done > before:
                failures = refusals = 0
            if done == len(buffer):
                return
            status, asked = (None, None) if failure is None else client.status_of(failure)
            if status in _REFUSED and not refusals:
                refusals += 1
                with self._lock:  # ask for a new address, once for all who found the old one worthless
                    self._location = None if self._location == location else self._location
            else:
                failures += 1
                stop.wait(self._wait(failure, failures, asked))

    def _wait(self, failure: Exception | None, failures: int, asked: float | None) -> float:
        """Seconds until the next attempt. Raises the error of a failure that does not pass, or that came too often."""
        if failures < client.ATTEMPTS and (failure is None or client.may_pass(failure)):
            return client.wait_for(failures, asked)
        if failure is None:
            raise Unreachable("the connection breaks again and again", where=self.where, hint="try again later")
        raise client.explained(failure, self.where) from None

    def _moved(self, location: str, target: str) -> None:
        """Ask there from now on. Raises BadAnswer where that leads nowhere."""
        with self._lock:
            self._moves += 1
            if self._moves > _MOST_MOVES:
                raise BadAnswer("the hub sends from one address to the next", where=self.where, hint=_AGAIN)
            self._location = target if self._location == location else self._location

    def _locate(self, stop: threading.Event) -> str:
        """The address of the bytes, asked for once. Raises BadAnswer where the hub says something else of the file."""
        with self._lock:
            if self._location is None:
                hub = client.package()
                url = hub.hf_hub_url(
                    self.repository, self.name, revision=self.commit, endpoint=client.constants().ENDPOINT
                )
                told = client.ask(lambda: hub.get_hf_file_metadata(url), self.where, stop)
                self._check(told)
                self._location = told.location
            return self._location

    def _check(self, told: Any) -> None:
        if told.size is not None and told.size != self.size:
            raise BadAnswer(f"the hub lists {self.size} bytes and announces {told.size}", where=self.where, hint=_AGAIN)
        if self.sha256 is not None and told.etag not in (None, self.sha256):
            raise BadAnswer("the hub lists one hash and announces another", where=self.where, hint=_AGAIN)


def _pieces(file: Ranges, location: str, start: int, buffer: memoryview) -> Iterator[int]:
    """Fill ``buffer`` with the bytes from ``start`` on; how many came each time. Raises what the transport raises,
    Refused, _Moved, BadAnswer."""
    settings, count = client.constants(), len(buffer)
    headers = client.package().utils.build_hf_headers()
    if urlsplit(location).netloc != urlsplit(settings.ENDPOINT).netloc:  # a token is for the hub alone
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    headers |= {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    with transport.get(location, headers, settings.HF_HUB_DOWNLOAD_TIMEOUT) as body:
        target = transport.elsewhere(location, body)
        if target is not None:
            raise _Moved(target)
        _check(file, body, start, count)
        done = 0
        while done < count:
            came = body.read_into(buffer[done : done + _PIECE])
            if not came:
                return
            done += came
            yield came


def _check(file: Ranges, body: transport.Body, start: int, count: int) -> None:
    """The answer is the range that was asked for, of a file of the size that was announced."""
    status, where = body.status, file.where
    if status == 416:
        raise BadAnswer(f"the hub announces {file.size} bytes, and the file is shorter", where=where, hint=_AGAIN)
    if status == 404:
        raise MissingFile("the hub lists this file and does not have it", where=where, hint=_AGAIN)
    if status >= 300:
        raise transport.Refused(_Answer(status, body.headers))
    if status != 206 and not (start == 0 and count == file.size):
        raise BadAnswer(
            "the server sends whole files where a part was asked for",
            where=where,
            hint="a proxy that knows no ranges stands between: download the files with `hf download`",
        )
    said = _RANGE.fullmatch(body.headers.get("Content-Range", ""))
    if status == 206 and (said is None or said["total"] not in ("*", str(file.size))):
        total = "?" if said is None else said["total"]
        raise BadAnswer(f"the hub announces {file.size} bytes and sends a part of {total}", where=where, hint=_AGAIN)
    length = body.headers.get("Content-Length", str(count))
    if (said is not None and said["first"] != str(start)) or length != str(count):
        raise BadAnswer("other bytes are sent than were asked for", where=where, hint=_AGAIN)


@dataclass(frozen=True)
class _Answer:
    """As the client's errors have it."""

    status_code: int
    headers: Mapping[str, str]


class _Moved(Exception):
    """The answer is given elsewhere."""

    def __init__(self, target: str) -> None:
        super().__init__("moved")
        self.target = target
