"""Rows about a Dask cluster of this machine, against one process."""

from __future__ import annotations

import hashlib
import threading
import time

from helpers.clusters import Cluster, cluster
from scale_rows import Measure, Place, Row
from scale_rows.layerwise import checkpoint
from scale_rows.resuming import digests

CHUNKS, QUICK_CHUNKS = 48, 16
SMALL, OF_SMALL = 5_000_000, 4  # bytes of a layer of small models, which read more: a run has to outlast its start
FASTER = 1.7
GIGABYTES, QUICK = 8.0, 2.0


def words(place: Place, out: str) -> list[str]:
    model, layer = checkpoint()
    count = (QUICK_CHUNKS if place.quick else CHUNKS) * (OF_SMALL if layer < SMALL else 1)
    return ["imatrix", str(model), "-o", out, "--chunks", str(count), "--force", "--quiet", "--threads", "1"]


def digest(place: Place, out: str) -> str:
    return hashlib.sha256((place.scratch / out).read_bytes()).hexdigest()


def dask(place: Place) -> list[Row]:
    """Two workers of one thread; then the same while one of them is killed. Workers have opened the model before."""
    alone = min(place.quantcli(*words(place, "alone.gguf")).seconds for _ in range(2))
    with cluster(2) as made:
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
    """Two workers of one thread make the shards of one conversion."""
    gigabytes = QUICK if place.quick else GIGABYTES
    folder, _ = place.checkpoint(gigabytes)
    given = ["convert", str(folder), "-t", "Q4_K_M", "--threads", "1", "--quiet", "--force"]
    given += ["--split-max-size", f"{round(gigabytes * 16)}M"]
    alone = min(place.quantcli(*given, "-o", "one/").seconds for _ in range(2))
    with cluster(2) as made:
        together = min(place.quantcli(*given, "-o", "two/", "--engine", made.url).seconds for _ in range(2))
    same = digests(place.scratch / "one") == digests(place.scratch / "two")
    faster = alone / together
    measured = f"{faster:.2f} x ({together:.1f} s), {'equal' if same else 'OTHER'} bytes"
    what = f"{gigabytes:g} GB -> Q4_K_M in shards, 2 Dask workers of one thread"
    return [(f"{what}: against one process", f">= {FASTER} x, same bytes", measured, faster >= FASTER and same)]


def kill_later(made: Cluster, seconds: float) -> None:
    time.sleep(seconds)
    made.kill(made.workers[0])


ROWS: dict[str, Measure] = {"engines": dask, "engines-convert": converting}
