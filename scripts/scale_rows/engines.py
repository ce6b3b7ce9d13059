"""Rows about a Dask cluster of this machine, against one process."""

from __future__ import annotations

import hashlib
import threading
import time

from helpers.clusters import Cluster, cluster
from scale_rows import Measure, Place, Row
from scale_rows.layerwise import checkpoint

CHUNKS, QUICK_CHUNKS = 48, 16
FASTER = 1.7


def words(place: Place, out: str) -> list[str]:
    count = QUICK_CHUNKS if place.quick else CHUNKS
    command = ["imatrix", str(checkpoint()[0]), "-o", out, "--chunks", str(count), "--force", "--quiet"]
    return [*command, "--threads", "1"]


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


def kill_later(made: Cluster, seconds: float) -> None:
    time.sleep(seconds)
    made.kill(made.workers[0])


ROWS: dict[str, Measure] = {"engines": dask}
