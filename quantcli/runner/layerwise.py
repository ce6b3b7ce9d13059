"""All chunks of a text through one layer, then through the next: each weight is read once, one layer is in memory.

What is computed is what `Network.stream` computes of the same batches, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy
from numpy.typing import NDArray

from quantcli import __version__
from quantcli.ggml import kernels
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.network import Network
from quantcli.runner.observe import Observer
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks
from quantcli.runner.waiting import Waiting, told

Progress = Callable[[int, str], None]  # chunks times layers done, what is worked on
STORE, PASSED, CHOSEN = "store", "passed", "chosen"  # what layers leave to later ones


class Watcher(Observer, Protocol):
    """Who sees the products of a pass."""

    def next_batch(self) -> None:
        """What comes now is of other chunks."""
        ...

    def take(self) -> Mapping[str, NDArray[numpy.generic]]:
        """What was seen since the last call, to be kept with the layer."""
        ...


def facts(session: Session, chunks: Chunks, purpose: str) -> dict[str, str | int]:
    """What states depend on: the manifest of a folder of them."""
    return {"purpose": purpose, **settings(session, chunks), "text": chunks.sha256(len(chunks)), "chunks": len(chunks)}


def settings(session: Session, chunks: Chunks) -> dict[str, str | int]:
    """What decides what is computed of a text's tokens, to the last bit."""
    return {
        "version": __version__,
        "model": fingerprint(session.model),
        "length": chunks.length,
        "activations": session.activations,
        "kv_type": session.network.kv_type,
        "isa": kernels.isa(),
    }


def waiting(
    session: Session, chunks: Chunks, path: Path, purpose: str, *, resume: bool = False, top: Path | None = None
) -> Waiting:
    """The folder for a pass of ``chunks`` through the session's model, see `Waiting`. Raises what it does."""
    width = session.network.embed(chunks.inputs(0, 1)[:, :1]).shape[-1]
    shape, layers = (len(chunks), chunks.length, width), session.network.settings.layers
    return Waiting(path, facts(session, chunks, purpose), shape, layers, resume=resume, top=top)


def holds(path: Path, chunks: Chunks) -> bool:
    """Whether states of exactly these chunks wait in a folder, whatever else they are of."""
    return told(path).get("text") == chunks.sha256(len(chunks))


def steps_left(network: Network, chunks: Chunks, states: Waiting) -> int:
    """Chunks times layers that `pass_through` will have to do."""
    return (network.settings.layers - states.done) * len(chunks)


def pass_through(
    network: Network, chunks: Chunks, states: Waiting, watcher: Watcher | None = None, progress: Progress | None = None
) -> None:
    """Bring ``chunks`` behind the last layer: `final` reads what comes out. Layers that are done are not done again.

    ``watcher`` sees every product; what it takes of a layer is kept in ``states``. Only one layer's weights are in
    memory. Raises NonFiniteResult, OutputFailed, BadStates.
    """
    layers, first = network.settings.layers, states.done
    if first == 0:
        states.begin()
        for start, stop in chunks.batches():
            states.put(0, start, network.embed(chunks.inputs(start, stop)))
    network.release_all()
    for layer in range(first, layers):
        states.begin()
        for start, stop in chunks.batches():
            with network.observed_by(watcher) if watcher is not None else nullcontext():
                states.put(layer + 1, start, _through(network, layer, states, start, stop))
            if watcher is not None:
                watcher.next_batch()
            if progress is not None:
                progress((layer - first) * len(chunks) + stop, f"layer {layer + 1} of {layers}")
        network.release(layer)
        states.finish(layer, {} if watcher is None else watcher.take())
    network.release_all()


def final(network: Network, states: Waiting, start: int, stop: int) -> Floats:
    """What comes out of the last layer, of chunks ``start`` to ``stop``: as `Network.stream` gives it."""
    return states.get(network.settings.layers, start, stop)


def _through(network: Network, layer: int, states: Waiting, start: int, stop: int) -> Floats:
    """One batch through one layer, with what other layers left to it, and leaving what it leaves to others."""
    x = states.get(layer, start, stop)
    cache = network.new_cache(*x.shape[:2])
    sources = network.settings.sources
    known = _restored(cache, states, layer, start, sources[layer] if sources else layer)
    x = network.layer(layer, x, cache)
    if layer in sources[layer + 1 :]:
        keys, values = cache.stores[layer]
        states.leave(STORE, layer, start, {"keys": keys, "values": values})
    new = {name: array for name, array in cache.passed.items() if array is not known.get(name)}
    if new:
        states.leave(PASSED, layer, start, new)
    if cache.chosen is not None and cache.chosen is not known.get(CHOSEN):
        states.leave(CHOSEN, layer, start, {CHOSEN: cache.chosen})
    return x


def _restored(cache: Cache, states: Waiting, layer: int, start: int, source: int) -> dict[str, NDArray[numpy.generic]]:
    """Put into ``cache`` what the layers before left to this one: keys and values of ``source``, and what is passed."""
    known: dict[str, NDArray[numpy.generic]] = {}
    if source != layer:
        store = states.left(STORE, source, start)
        cache.stores[source] = [store["keys"], store["values"]]  # type: ignore[list-item]  # uint8, as they were left
    passing = states.who_left(PASSED, layer, start)
    if passing is not None:
        known |= states.left(PASSED, passing, start)
        cache.passed.update(known)  # type: ignore[arg-type]  # float32, as they were left
    choosing = states.who_left(CHOSEN, layer, start)
    if choosing is not None:
        known[CHOSEN] = cache.chosen = states.left(CHOSEN, choosing, start)[CHOSEN]  # type: ignore[assignment]
    return known
