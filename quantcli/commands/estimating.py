"""How long this machine will take for a job, what memory and disk it needs: from a second of measuring.

Kernels are timed on normal weights of the types of the plan, the ones that cost most first; those for which no time is
left go by the table of costs, at the ratio of those that were measured. Reading is timed on the source itself, behind
the system's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli import system
from quantcli.commands.job import Job
from quantcli.encode.pipeline import AHEAD
from quantcli.encode.sinks import UNWRITTEN
from quantcli.encode.slabs import SLAB_WEIGHTS
from quantcli.errors import QuantcliError
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.plain import search_for
from quantcli.model import Model
from quantcli.plan import costs
from quantcli.report.results import EstimateResult
from quantcli.sources.files import PIECE_BYTES

Floats = NDArray[numpy.float32]
ENCODING, READING = 0.7, 0.3  # seconds of measuring
COLUMNS, LEAST_ROWS, MOST_ROWS = 4096, 4, 64
READ_BYTES = 64 << 20  # at most
FLOAT_BYTES = 4
HASHED = 4 << 20  # bytes


@dataclass(frozen=True)
class Speeds:
    """What was measured: ns of one core per weight by type, bytes per second of reading (None: unknown), ns of one
    core per byte that is hashed."""

    encoding: dict[str, float]
    reading: float | None
    hashing: float


@lru_cache(maxsize=1)
def sample(rows: int) -> Floats:
    """Normal weights, float32 [rows, COLUMNS], the same every time."""
    drawn: Floats = numpy.random.default_rng(1).standard_normal((rows, COLUMNS), numpy.float32)
    drawn *= numpy.float32(0.02)
    return drawn


def encoder_of(tensor_type: TensorType, asked: str | None, like: Floats) -> Callable[[Floats], object]:
    """What encodes rows like ``like`` to a type by a search (None: the best there is), as a conversion would."""
    search = search_for(tensor_type, asked)
    weights = None if tensor_type.importance == "ignored" else numpy.ones(like.shape[1], numpy.float32)
    return lambda rows: kernels.encode(tensor_type.id, rows, weights, search=search)


def measure(job: Job) -> Speeds:
    """A second, at most."""
    return Speeds(_encoding(job, ENCODING), _reading(job.parts[0].model, READING), _hashing())


def _weights(job: Job) -> Counter[str]:
    """Weights that are encoded, by type; those copied under ""."""
    found: Counter[str] = Counter()
    for one in job.plans:
        for entry in one.entries:
            copied = entry.tensor.raw and entry.type is entry.tensor.stored
            found["" if copied else entry.type.name] += entry.tensor.rows * entry.tensor.columns
    return found


def _encoding(job: Job, seconds: float) -> dict[str, float]:
    types = {entry.type.name: entry.type for one in job.plans for entry in one.entries}
    weights = _weights(job)
    expected = {name: count * costs.NANOSECONDS.get(name, costs.USUAL) for name, count in weights.items() if name}
    found: dict[str, float] = {}
    end = time.monotonic() + seconds
    for name in sorted(expected, key=expected.__getitem__, reverse=True):
        left = end - time.monotonic()
        if left <= 0 or not kernels.can_encode(types[name].id, search_for(types[name], job.request.search)):
            continue
        found[name] = _timed(types[name], job.request.choice.settings.search, left / 2)
    ratio = _ratio(found, expected)
    return {name: found.get(name, ratio * costs.NANOSECONDS.get(name, costs.USUAL)) for name in expected}


def _timed(tensor_type: TensorType, search: str | None, seconds: float) -> float:
    """ns per weight: the least of several calls, few rows first."""
    rows, best, end = LEAST_ROWS, float("inf"), time.monotonic() + seconds
    while True:
        piece = sample(MOST_ROWS)[:rows]
        encode, start = encoder_of(tensor_type, search, piece), time.perf_counter_ns()
        encode(piece)
        took = time.perf_counter_ns() - start
        best = min(best, took / piece.size)
        rows = min(2 * rows, MOST_ROWS)
        if time.monotonic() + 2e-9 * took > end:
            return best


def _ratio(found: dict[str, float], expected: dict[str, float]) -> float:
    """This machine beside the table's: by what was measured."""
    table = sum(costs.NANOSECONDS.get(name, costs.USUAL) for name in found)
    return sum(found.values()) / table if found and table else 1.0


def _reading(model: Model, seconds: float) -> float | None:
    """Bytes per second of the source: pieces of its largest file, or rows of its largest tensor where that is no file
    of this machine."""
    local = [path for path in model.weight_files if os.path.isfile(path)]
    if local:
        return _file_speed(max(local, key=os.path.getsize), seconds)
    tensor = max(model.tensors, key=lambda one: one.rows * one.columns)
    width = max(tensor.columns * tensor.stored.bytes // tensor.stored.block, 1)
    rows = min(max(READ_BYTES // 8 // width, 1), tensor.rows)
    start = time.perf_counter()
    try:
        tensor.reader.read_rows(0, rows)
    except QuantcliError:
        return None
    return rows * width / max(time.perf_counter() - start, 1e-9)


def _file_speed(path: str, seconds: float) -> float | None:
    size, done = os.path.getsize(path), 0
    buffer = memoryview(bytearray(PIECE_BYTES))
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        middle = size // 2 // PIECE_BYTES * PIECE_BYTES
        file.seek(middle)
        system.forget_pages(file.fileno(), middle, READ_BYTES)
        start = time.perf_counter()
        while done < READ_BYTES and time.perf_counter() - start < seconds and (count := file.readinto(buffer)):
            done += count
        return done / max(time.perf_counter() - start, 1e-9) if done else None
    return None


def _hashing() -> float:
    data = bytes(HASHED)
    start = time.perf_counter_ns()
    hashlib.sha256(data).digest()
    return (time.perf_counter_ns() - start) / HASHED


def estimate(job: Job) -> EstimateResult:
    """What a conversion will need, were it started now."""
    speeds = measure(job)
    weights, bytes_out = _weights(job), sum(one.file_bytes for one in job.plans)
    encoding = sum(count * speeds.encoding.get(name, costs.COPIED) for name, count in weights.items())
    cores = min(job.threads, os.cpu_count() or 1)
    first = any(one.whole is None or 0 in one.numbers for one in job.plans)  # its header tells the source's hash
    hashed = job.total_bytes if first and not job.far else 0
    busy = (encoding + speeds.hashing * (bytes_out + hashed)) / 1e9 / max(cores, 1)
    again = hashed if job.request.resume else 0  # others hash what they read
    moved = None if speeds.reading is None else (job.total_bytes + again + bytes_out) / speeds.reading
    total = sum(weights.values())
    folder = job.files[0][0].parent
    return {
        "seconds": round(max(busy, moved or 0.0), 3),
        "encoding_seconds": round(busy, 3),
        "moving_seconds": None if moved is None else round(moved, 3),
        "nanoseconds_per_weight": round(encoding / max(total, 1), 2),
        "reading_bytes_per_second": None if speeds.reading is None else round(speeds.reading),
        "memory_bytes": _memory(job),
        "disk_bytes": bytes_out,
        "disk_free_bytes": _free(folder),
        "calibration": bool(job.request.collect or job.request.wish or job.request.sizing),
    }


def _memory(job: Job) -> int:
    """What the process has now, and the slabs of a conversion: rows as floats, their bytes, and what waits."""
    slab = SLAB_WEIGHTS * FLOAT_BYTES
    widest = max((entry.tensor.columns for one in job.plans for entry in one.entries), default=1)
    slab = max(slab, widest * FLOAT_BYTES * 16)
    outputs = max(len(part.plans) for part in job.parts)
    threads = job.threads * (slab + 2 * PIECE_BYTES)
    waiting = (job.threads + AHEAD + UNWRITTEN) * outputs * slab // 2
    return system.peak_memory() + threads + waiting


def _free(folder: Path) -> int | None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None
