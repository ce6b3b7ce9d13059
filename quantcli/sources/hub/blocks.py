"""Blocks of files that are far away: fetched by a few threads at once, kept until they were read and there is need for
their room. One store serves all files, so that memory is bounded whatever the model's size."""

from __future__ import annotations

import mmap
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from quantcli.errors import QuantcliError

BLOCK = 4 << 20  # bytes of a request at most: enough that its costs do not count
CONNECTIONS = 8  # requests in flight
BUDGET = 64 << 20  # bytes that are kept
MOST = 1 << 30  # bytes that the budget may grow to, where a tensor is read in another order than it lies
_SPARE = 1  # buffers
_REMEMBERED = 512 << 20  # bytes fetched ago that a block was given up: who asks for it again needs a larger budget

Fetch = Callable[[int, memoryview, threading.Event], None]  # from a byte on, fill a buffer
Arrived = Callable[["Block"], None]


@dataclass(eq=False)
class Block:
    """Bytes ``start`` to ``stop`` of a file. ``users`` are those who may be looking at ``data``."""

    owner: object
    start: int
    stop: int
    data: NDArray[numpy.uint8]
    users: int = 0
    read: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    @property
    def free(self) -> bool:
        return self.ready.is_set() and not self.users


@dataclass(frozen=True)
class _Task:
    block: Block
    fetch: Fetch
    stop: threading.Event
    arrived: Arrived


class Blocks:
    """``take`` a block, wait for it, ``release`` it. Thread-safe."""

    def __init__(self, budget: int = BUDGET, connections: int = CONNECTIONS) -> None:
        self.budget, self._connections = budget, connections
        self._blocks: OrderedDict[tuple[object, int], Block] = OrderedDict()  # the least recently used first
        self._given_up: OrderedDict[tuple[object, int], int] = OrderedDict()  # -> bytes fetched before it went
        self._held = self._fetched = self._threads = self._idle = 0
        self._buffers: list[NDArray[numpy.uint8]] = []
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a file may be let go by the collector in the middle of it

    def has(self, owner: object, start: int) -> bool:
        """Whether the block is here, or on its way."""
        return (owner, start) in self._blocks

    def take(self, owner: object, start: int, stop: int, fetch: Fetch, end: threading.Event, arrived: Arrived) -> Block:
        """The block, which will be ready some time; ask for it where it is not here. `release` it in the end."""
        with self._lock:
            block = self._blocks.get((owner, start)) or self._ask(owner, start, stop, fetch, end, arrived)
            block.users += 1
            self._blocks.move_to_end((owner, start))
            return block

    def ahead(self, owner: object, start: int, stop: int, fetch: Fetch, end: threading.Event, arrived: Arrived) -> None:
        """Ask for a block that will be wanted soon, where there is room for it."""
        with self._lock:
            if (owner, start) not in self._blocks and self._room(stop - start, consumed=True):
                self._ask(owner, start, stop, fetch, end, arrived)

    def hold(self, block: Block) -> None:
        """One more user of a block that is here."""
        with self._lock:
            block.users += 1

    def release(self, block: Block, read: int = 0) -> None:
        """The block is not looked at any more; ``read`` bytes of it were."""
        with self._lock:
            block.users -= 1
            block.read += read
            if block.error is not None and not block.users and self._blocks.get((block.owner, block.start)) is block:
                self._drop(block)  # the next one who asks tries again

    def forget(self, owner: object) -> None:
        """Whoever waits for blocks of ``owner`` is told that there will be none, and those that are here go."""
        with self._lock:
            for block in [block for (whose, _), block in self._blocks.items() if whose is owner]:
                if block.free:
                    self._drop(block)
                    continue
                block.users += 1  # for ever: somebody may still write into it
                self._drop(block)
                block.error = block.error or QuantcliError("reading was ended")
                block.ready.set()

    # ---- under the lock

    def _ask(self, owner: object, start: int, stop: int, fetch: Fetch, end: threading.Event, arrived: Arrived) -> Block:
        size = stop - start
        gone = self._given_up.pop((owner, start), None)
        if gone is not None:  # read again so soon: what is read together does not fit
            self.budget = min(self.budget + 2 * size, MOST)
        self._room(size)
        block = Block(owner, start, stop, self._buffer(size))
        self._blocks[owner, start] = block
        self._held += size
        self._fetched += size
        self._tasks.put(_Task(block, fetch, end, arrived))
        if self._tasks.qsize() > self._idle and self._threads < self._connections:
            self._threads += 1
            threading.Thread(target=self._work, name="quantcli-hub", daemon=True).start()
        return block

    def _buffer(self, size: int) -> NDArray[numpy.uint8]:
        """Pages of their own for whole blocks: what threads allocate by turns would never go back to the system."""
        if size != BLOCK:
            return numpy.empty(size, numpy.uint8)
        return self._buffers.pop() if self._buffers else numpy.frombuffer(mmap.mmap(-1, BLOCK), numpy.uint8)

    def _room(self, size: int, *, consumed: bool = False) -> bool:
        """Whether ``size`` bytes fit, blocks that were read (or any that nobody uses) given up for them."""
        for wanted in (True, False) if not consumed else (True,):
            for block in list(self._blocks.values()):
                if self._held + size <= self.budget:
                    return True
                if block.free and (not wanted or block.read >= block.stop - block.start):
                    self._drop(block)
                    self._given_up[block.owner, block.start] = self._fetched
        while self._given_up and self._fetched - next(iter(self._given_up.values())) > _REMEMBERED:
            self._given_up.popitem(last=False)
        return self._held + size <= self.budget

    def _drop(self, block: Block) -> None:
        del self._blocks[block.owner, block.start]
        self._held -= block.stop - block.start
        if block.free and block.data.size == BLOCK and len(self._buffers) < _SPARE:
            self._buffers.append(block.data)

    # ---- on the threads

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            task = self._tasks.get()
            with self._lock:
                self._idle -= 1
            block = task.block
            try:
                if block.error is None:
                    task.fetch(block.start, block.data.data, task.stop)
                    if task.stop.is_set():
                        raise QuantcliError("reading was ended")
                    task.arrived(block)
            except Exception as error:
                block.error = block.error or error
            block.ready.set()
