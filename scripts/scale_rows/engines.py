"""Rows about a Dask cluster of this machine, against one process.

The cluster is up, and its workers have loaded the package, before the clock runs, as those of a cluster have that is
there. One process of one thread also hashes its source and writes, on threads of their own: where that keeps much more
than one core busy, as for quick types, the cores of this machine bound what workers can gain, which a row says as well.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from pathlib import Path

from helpers.clusters import Cluster, cluster
from scale_rows import Measure, Place, Row, Run
from scale_rows.layerwise import checkpoint
from scale_rows.resuming import digests, options

CHUNKS, QUICK_CHUNKS = 48, 16
SMALL, OF_SMALL = 5_000_000, 4  # bytes of a layer of small models, which read more: a run has to outlast its start
FASTER = 1.7
GIGABYTES, QUICK = 8.0, 2.0
SLOW, QUICKER = ("Q4_K_M", "IQ2_XS"), ("Q4_K_M",)
WORKERS = 2


def words(place: Place, out: str) -> list[str]:
    model, layer = checkpoint()
    count = (QUICK_CHUNKS if place.quick else CHUNKS) * (OF_SMALL if layer < SMALL else 1)
    return ["imatrix", str(model), "-o", out, "--chunks", str(count), "--force", "--quiet", "--threads", "1"]


def digest(place: Place, out: str) -> str:
    return hashlib.sha256((place.scratch / out).read_bytes()).hexdigest()


def dask(place: Place) -> list[Row]:
    """Two workers of one thread; then the same while one of them is killed. Workers have opened the model before."""
    alone = min(place.quantcli(*words(place, "alone.gguf")).seconds for _ in range(2))
    with cluster(WORKERS) as made:
        made.load("quantcli.engines.tasks")
        together = min(place.quantcli(*words(place, "two.gguf"), "--engine", made.url).seconds for _ in range(2))
        same = digest(place, "two.gguf") == digest(place, "alone.gguf")
        killer = threading.Thread(target=kill_later, args=(made, together / 2))
        killer.start()
        place.quantcli(*words(place, "killed.gguf"), "--engine", made.url)
        killer.join()
        survived = digest(place, "killed.gguf") == digest(place, "alone.gguf")
    what = f"imatrix of {checkpoint()[0].name}, 2 Dask workers of one thread"
    faster = alone / together
    measured = f"{faster:.2f} x ({together:.1f} s), {'equal' if same else 'OTHER'} bytes"
    return [
        (f"{what}: against one process", f">= {FASTER} x, same bytes", measured, faster >= FASTER and same),
        (f"{what}, one killed in the middle", "same bytes", "equal" if survived else "others", survived),
    ]


def converting(place: Place) -> list[Row]:
    """Two workers of one thread make the shards of a conversion: of types that take long, then of a quick one."""
    gigabytes = QUICK if place.quick else GIGABYTES
    folder, matrix = place.checkpoint(gigabytes)
    found = []
    for types in (SLOW, QUICKER):
        given = ["convert", str(folder), *options(types, matrix, 1), "--quiet", "--force"]
        given += ["--split-max-size", f"{round(gigabytes * 16)}M"]
        alone = _quickest(place, folder, given, "one")
        with cluster(WORKERS) as made:
            made.load("quantcli.commands.fleet")
            before = made.processor()
            together = _quickest(place, folder, [*given, "--engine", made.url], "two")
            workers = [now - then for now, then in zip(made.processor(), before, strict=True)]
        same = digests(place.scratch / "one") == digests(place.scratch / "two")
        for name in ("one", "two"):
            shutil.rmtree(place.scratch / name)
        what = f"{gigabytes:g} GB -> {' + '.join(types)} in shards, 2 Dask workers of one thread: against one process"
        runs = _runs(place)
        faster, most = alone.seconds / together.seconds, WORKERS * alone.seconds / alone.processor
        measured = (
            f"{faster:.2f} x ({together.seconds:.1f} s) of {most:.2f} x, {'equal' if same else 'OTHER'} bytes; alone "
            f"{alone.seconds:.1f} s, processor {alone.processor:.1f} s, {alone.system:.1f} of them the system's; "
            f"workers {sum(workers) / runs:.1f} s, {workers[1] / runs:.1f}; client {together.processor:.1f} s"
        )
        found.append((what, f">= {FASTER} x, same bytes", measured, faster >= FASTER and same))
    return found


def _runs(place: Place) -> int:
    """Two of a small model, one of a large one."""
    return 2 if place.quick else 1


def _quickest(place: Place, folder: Path, given: list[str], out: str) -> Run:
    """Of `_runs`; the weights in ``folder`` are in the system's cache."""
    runs = []
    for _ in range(_runs(place)):
        place.warm(folder)
        runs.append(place.quantcli(*given, "-o", f"{out}/"))
    return min(runs, key=lambda run: run.seconds)


def kill_later(made: Cluster, seconds: float) -> None:
    time.sleep(seconds)
    made.kill(made.workers[0])


ROWS: dict[str, Measure] = {"engines": dask, "engines-convert": converting}
