"""The hub's own client, brought when it is needed; its errors, and those of the connection, as ours.

The client's environment is ours: HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE. No message quotes it: its texts hold
signed addresses, and what a user can do about them is said here.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import logging
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from quantcli.errors import BadAnswer, MissingFile, MissingPackage, NoAccess, OutputFailed, QuantcliError, Unreachable
from quantcli.sources.hub.address import without_tokens

EXTRA = "hub"
ATTEMPTS = 6  # without any progress, until a request is given up
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between them: doubled each time
LONGEST_ASKED = 300.0  # seconds that a hub may ask to wait
PASSING = (408, 425, 429, 500, 502, 503, 504)  # states that pass

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OF_DISKS = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG, errno.ENOTDIR, errno.ENAMETOOLONG)
_CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")  # the first that is set decides

_Result = TypeVar("_Result")


def package() -> ModuleType:
    """The client, silent: it logs addresses that are secret. Raises MissingPackage."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingPackage(
            "reading from the hub needs the package huggingface_hub", hint=f"pip install 'quantcli[{EXTRA}]'"
        )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    hub = importlib.import_module("huggingface_hub")
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")  # a full disk is an error of ours
    return hub


def constants() -> Any:
    """The client's settings, as its environment makes them."""
    package()
    return importlib.import_module("huggingface_hub.constants")


def offline() -> bool:
    """Whether the client was told to stay at home."""
    settings = constants()
    asked = getattr(settings, "is_offline_mode", None)
    return bool(settings.HF_HUB_OFFLINE if asked is None else asked())


def asked_wait(headers: Any) -> float | None:
    """The seconds that a refusal asks to wait; None where it does not say."""
    stated = (headers.get("Retry-After") or "").strip()
    if stated.isdigit():
        return min(float(stated), LONGEST_ASKED)
    rate = importlib.import_module("huggingface_hub.utils._http").parse_ratelimit_headers(headers)
    return None if rate is None or rate.remaining else min(float(rate.reset_in_seconds), LONGEST_ASKED)


def wait_for(attempt: int, asked: float | None) -> float:
    """Seconds to wait behind the failure number ``attempt`` (from 1): what was asked for, else longer every time, and
    never for all clients alike."""
    doubled = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
    return asked if asked is not None else doubled * (0.75 + 0.5 * random.random())


def ask(
    call: Callable[[], _Result], where: str, stop: threading.Event | None = None, attempts: int | None = None
) -> _Result:
    """What ``call`` of the client gives, tried again where the failure may pass. Raises the error that says what is
    wrong with ``where``, without the client's own."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except Exception as raised:
            error = raised
            if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(error.__cause__, Exception):
                error = error.__cause__  # the hub was asked in vain, and so the client looked into its cache
            _, asked = status_of(error)
            if not may_pass(error) or attempt >= (attempts or ATTEMPTS):
                found = explained(error, where)
                break
        seconds = wait_for(attempt, asked)
        if stop is None:
            time.sleep(seconds)
        elif stop.wait(seconds):
            found = Unreachable("given up", where=where)
            break
    raise found from None


def status_of(error: Exception) -> tuple[int | None, float | None]:
    """The state of the answer that the error is about, and the seconds that it asks to wait."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status, asked_wait(response.headers) if status in PASSING and response is not None else None


def may_pass(error: Exception) -> bool:
    """Whether it makes sense to try again: the server is busy, or the answer never came."""
    kinds = {base.__name__ for base in type(error).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in PASSING or (status is None and bool(kinds & {"TransportError", "ConnectionError"}))


def explained(error: Exception, where: str) -> QuantcliError:
    """The error of the client or of its connection, as ours."""
    if isinstance(error, QuantcliError):
        return error
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_DISKS):
        return _no_cache(error)
    kinds = {base.__name__ for base in type(error).__mro__}
    status, _ = status_of(error)
    for matches, make in _CAUSES:
        if matches(kinds, status):
            return make(where)
    said = without_tokens(type(error).__name__ + (f", status {status}" if status else ""))
    return Unreachable(f"the hub's client gave up: {said}", where=where, hint="try again later")


def stays_offline(where: str) -> QuantcliError:
    """The error for what is not in the cache, where nothing else may be asked."""
    return Unreachable(
        "the client is told to stay offline, and its cache does not hold this",
        where=where,
        hint="without the variable HF_HUB_OFFLINE it is read from the hub",
    )


def _no_cache(error: OSError) -> OutputFailed:
    """The error for a folder of the client that cannot take what came."""
    variable = next((name for name in _CACHE_VARIABLES if name in os.environ), _CACHE_VARIABLES[-1])
    room = f"free some space there, or set {variable} to a folder of another disk"
    return OutputFailed(
        f"the hub client's cache cannot be written: {error.strerror or type(error).__name__}",
        where=str(constants().HF_HUB_CACHE),
        hint=room if error.errno in _FULL else f"set {variable} to a folder that you may write to",
    )


def _refused(where: str) -> QuantcliError:
    if package().get_token():
        return NoAccess(
            "the hub refuses this token", where=where, hint="hf auth login   (or another token in HF_TOKEN)"
        )
    return NoAccess(
        "the hub wants to know who asks", where=where, hint="hf auth login   (or a token in the variable HF_TOKEN)"
    )


def _gated(where: str) -> QuantcliError:
    known = bool(package().get_token())
    page = f"{constants().ENDPOINT}/{where.removeprefix('hf://').partition('@')[0]}"
    return NoAccess(
        "access to this repository is given by its owners, and "
        + ("the account of this token has none" if known else "there is no token"),
        where=where,
        hint=f"ask for it at {page}" + ("" if known else ", then: hf auth login   (or a token in HF_TOKEN)"),
    )


def _no_repository(where: str) -> QuantcliError:
    hint = "look at its spelling; a private one needs a token that may read it: hf auth login"
    return MissingFile("there is no such repository on the hub, or this token may not see it", where=where, hint=hint)


_Cause = tuple[Callable[[set[str], "int | None"], bool], Callable[[str], QuantcliError]]
# the first that fits: names of the error's classes, and the answer's state
_CAUSES: tuple[_Cause, ...] = (
    (
        lambda kinds, status: bool(kinds & {"OfflineModeIsEnabled"}),
        lambda where: stays_offline(where),
    ),
    (lambda kinds, status: "GatedRepoError" in kinds, _gated),
    (
        lambda kinds, status: "RevisionNotFoundError" in kinds,
        lambda where: MissingFile(
            "the repository has no such revision",
            where=where,
            hint="name a branch, a tag or a commit behind the @; without one it is the main branch",
        ),
    ),
    (
        lambda kinds, status: "DisabledRepoError" in kinds,
        lambda where: NoAccess("the hub has closed this repository", where=where),
    ),
    (lambda kinds, status: "RepositoryNotFoundError" in kinds, _no_repository),
    (
        lambda kinds, status: "EntryNotFoundError" in kinds or status == 404,
        lambda where: MissingFile("the hub has no such file at this revision", where=where),
    ),
    (lambda kinds, status: status in (401, 403), _refused),
    (
        lambda kinds, status: status == 429,
        lambda where: Unreachable(
            "the hub takes no more requests for now",
            where=where,
            hint="try again in a few minutes; a token raises the limit",
        ),
    ),
    (
        lambda kinds, status: status is not None and status >= 500,
        lambda where: Unreachable("the hub fails to answer", where=where, hint="try again later"),
    ),
    (
        lambda kinds, status: "FileMetadataError" in kinds,
        lambda where: BadAnswer(
            "the answer is not that of a hub", where=where, hint="look at HF_ENDPOINT and at the proxy's settings"
        ),
    ),
    (
        lambda kinds, status: bool(kinds & {"TransportError", "ConnectionError", "OSError"}),
        lambda where: Unreachable(
            f"no connection to {constants().ENDPOINT}",
            where=where,
            hint="HF_HUB_OFFLINE=1 reads what the client's cache holds",
        ),
    ),
)
