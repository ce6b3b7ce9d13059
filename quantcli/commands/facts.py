"""What a run that can be resumed is: all that decides its bytes, in words, so that people see what differs.

Short values stand as they are, of others a hash. The hashes of whole plans come last: nothing escapes them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy

from quantcli import __version__
from quantcli.commands import provenance
from quantcli.commands.job import Job
from quantcli.container import Strings, Value
from quantcli.output.journals import PLAN
from quantcli.plan.plan import Plan
from quantcli.plan.shards import SOURCE_SHA256
from quantcli.statistics.imatrix import Importance

COMMIT = "the commit of the source"
_HASH = "the sha256 of "
LONG = 200  # characters of a text that stands as it is
# What metadata are called here, where they have a name among people.
_WORDS = {"quantcli.source.commit": COMMIT, "quantcli.source.name": "the name of the source"}
# Options and metadata that are told in other words.
_OPTIONS_TOLD = ("type", "search", "method", "snap", "imatrix")
_METADATA_TOLD = (
    "quantcli.version", "quantcli.options", "quantcli.search", "quantcli.method", "quantcli.snap",
    "general.file_type", "quantize.imatrix.sha256",
)  # fmt: skip


def of(job: Job) -> dict[str, str]:
    """What must be the same for a run to go on: what it is called -> what it is."""
    request = job.request
    told = dict(_metadata(job))
    found = {"the version of quantcli": __version__}
    found |= {key: told.pop(key) for key in _WORDS.values() if key in told}
    for part in job.parts:
        for handle in part.model.handles:
            found |= {f"{name} of the source": looks for name, looks in handle.identities().items()}
        found |= {hash_of(path): digest for path, digest in part.model.digests.items()}
    found |= {key: text for key, text in told.items() if key.startswith(_HASH)}
    for one, paths in zip(job.plans, job.files, strict=True):
        files = f"{len(paths)} file{'s' * (len(paths) != 1)}"
        found[f"the type of {paths[0].name}"] = f"{one.file_type.name}, {files}"
    found["the search"] = request.search
    found["the method"] = request.choice.name or "the search"
    found["--snap"] = request.snap
    if not request.made_by:
        found |= dict(_options(request.options))
    for matrix in {id(one.options.importance): one.options.importance for one in job.plans}.values():
        if matrix is not None:
            found["the importance matrix"] = _digest(matrix)
    found |= {key: text for key, text in told.items() if key not in found}
    for part in job.parts:
        if part.model.vocabulary is not None:
            found["what the vocabulary is made of"] = part.model.vocabulary.origin
    for one, paths in zip(job.plans, job.files, strict=True):
        found[f"{PLAN}{paths[0].name}"] = plan_digest(one)
    return found


def before_work(
    earlier: Mapping[str, str], now: Mapping[str, str], *, calibrates: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Both without what ``now`` does not know before its work: hashes that are made while the source is read, and what
    a run that ``calibrates`` will say of that."""
    late = (PLAN, "quantcli.") if calibrates else ()
    before = {key: text for key, text in earlier.items() if key in now or not key.startswith(_HASH)}
    kept, known = ({key: text for key, text in one.items() if not key.startswith(late)} for one in (before, now))
    return kept, known


def hash_of(path: str) -> str:
    """What the hash of a file of the source is called."""
    return f"{_HASH}{os.path.basename(path)}"


def plan_digest(one: Plan) -> str:
    """sha256 of all headers that the plan writes: metadata, names, shapes, types, offsets. Without the hashes of the
    weights' files, which are facts of their own: they may be known later."""
    digest = hashlib.sha256()
    for shard in one.shards:
        digest.update(replace(shard, metadata=provenance.without_hashes(shard.metadata, one.model)).header())
    return digest.hexdigest()


def _options(given: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in given.items():
        if name not in _OPTIONS_TOLD:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield f"--{name.replace('_', '-')}", text


def _metadata(job: Job) -> Iterable[tuple[str, str]]:
    """The metadata of all plans: one text where they agree, else what each has."""
    texts: dict[int, str] = {}
    values: dict[str, dict[str, str]] = {}
    for one, paths in zip(job.plans, job.files, strict=True):
        weights = provenance.hash_keys(one.model)
        for key, value in one.metadata.items():
            if key not in _METADATA_TOLD and key not in weights:
                text = texts.get(id(value)) or texts.setdefault(id(value), _said(value))
                values.setdefault(key, {})[paths[0].name] = text
    for key, by_file in values.items():
        same = len(by_file) == len(job.plans) and len(set(by_file.values())) == 1
        name = f"{_HASH}{key[len(SOURCE_SHA256) :]}" if key.startswith(SOURCE_SHA256) else _WORDS.get(key, key)
        yield name, next(iter(by_file.values())) if same else ", ".join(f"{t} ({file})" for file, t in by_file.items())


def _said(value: Value) -> str:
    """A value for people, and of a long one enough to tell it from others."""
    data = value.data
    if isinstance(data, int | float) or (isinstance(data, str) and len(data) <= LONG):
        return str(data)
    if isinstance(data, numpy.ndarray):
        raw = numpy.ascontiguousarray(data).tobytes()
    elif isinstance(data, Strings):
        raw = bytes(data.raw)
    else:
        raw = data.encode(errors="surrogatepass") if isinstance(data, str) else bytes(data)
    what = "characters" if isinstance(data, str | bytes) else "entries"
    return f"{len(data)} {what} with the sha256 {hashlib.sha256(raw).hexdigest()[:16]}"


def _digest(matrix: Importance) -> str:
    """Of what was read: a part looks at the values of its own entries alone."""
    digest = hashlib.sha256()
    for name in sorted(matrix.sums):
        digest.update(name.encode())
        for read in (matrix.sums[name], matrix.counts[name]):
            digest.update(numpy.ascontiguousarray(read).data)
    return digest.hexdigest()
