"""From chunks to log-probabilities, a bounded block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy

from quantcli.runner.arrays import Floats, Ids
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks

BLOCK = 12 << 20  # logits that are held at a time (48 MB)
NOTHING: Floats = numpy.empty((0, 0, 0), numpy.float32)  # no batch


@dataclass(frozen=True)
class Block:
    """Scored positions ``start`` to ``stop`` (counted in the chunk) of chunk ``chunk``."""

    chunk: int
    start: int
    stop: int


def blocks(chunks: Chunks, chunk: int, vocabulary: int) -> Iterator[Block]:
    """The scored positions of one chunk, in pieces of bounded size."""
    step = max(8, BLOCK // vocabulary)
    last = chunks.length - 1
    for start in range(chunks.first_scored, last, step):
        yield Block(chunk, start, min(start + step, last))


def targets(chunks: Chunks, block: Block) -> Ids:
    """The text's next tokens of the block's positions."""
    return chunks.tokens[block.chunk, block.start + 1 : block.stop + 1]


Streams = Callable[[int, int], Floats]  # of chunks from, to: what leaves the last layer, [chunks, positions, width]


class ModelScores:
    """Log-probabilities of one network: `begin` runs a batch of chunks, `block` gives a piece of it."""

    def __init__(self, network: Network, chunks: Chunks, streams: Streams | None = None) -> None:
        """``streams``: what has been run already and is not run again."""
        self.network, self.chunks, self.streams = network, chunks, streams
        self.first = 0
        self.x = NOTHING

    def begin(self, start: int, stop: int) -> None:
        """Run chunks ``start`` to ``stop``."""
        self.first = start
        self.x = NOTHING  # free the last batch before the next is made
        self.x = self.streams(start, stop) if self.streams else self.network.stream(self.chunks.inputs(start, stop))

    def block(self, block: Block) -> Floats:
        """[positions, vocabulary]; the caller may change it."""
        index = block.chunk - self.first
        found = self.network.log_probs(self.x[index : index + 1, block.start : block.stop])
        return found.reshape(found.shape[1:])
