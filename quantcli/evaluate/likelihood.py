"""Perplexity of a text: exp of the mean negative log-likelihood of the second half of every chunk.

As llama.cpp's perplexity tool defines it, so that figures compare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy

from quantcli.evaluate import figures
from quantcli.evaluate.scoring import ModelScores, Streams, blocks, targets
from quantcli.report.measurements import LikelihoodResult
from quantcli.runner.arrays import Doubles
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks

Progress = Callable[[int, str], None]  # (chunks done, what is known so far)


def measure(
    session: Session,
    chunks: Chunks,
    progress: Progress | None = None,
    streams: Streams | None = None,
    found: Iterator[Doubles] | None = None,
) -> LikelihoodResult:
    """How well the model predicts the text. ``streams``: of what has been run already; only the head is left to do.
    ``found``: what `chunk_by_chunk` gives, made elsewhere.

    After an interrupt the result is that of the chunks that are complete; without any, the KeyboardInterrupt goes on.
    """
    nll = figures.Moments()
    per_chunk: list[float] = []
    interrupted = False
    whole = {stop for _, stop in chunks.batches()}
    found = found or chunk_by_chunk(session, chunks, streams)
    start = time.perf_counter()
    try:
        for values in found:
            nll.add(values)
            per_chunk.append(float(values.mean()))
            if progress is not None and len(per_chunk) in whole:  # only whole batches tell the speed
                progress(len(per_chunk), "PPL {mean:.4f} +- {se:.4f}".format_map(figures.perplexity(nll)))
    except KeyboardInterrupt:
        if not per_chunk:
            raise
        interrupted = True
    seconds = time.perf_counter() - start
    tokens = len(per_chunk) * chunks.length
    return {
        "perplexity": figures.perplexity(nll),
        "text": os.path.basename(chunks.name),
        "context": chunks.length,
        "chunks": len(per_chunk),
        "tokens": tokens,
        "scored": nll.count,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "per_chunk": per_chunk,
        "interrupted": interrupted,
    }


def chunk_by_chunk(session: Session, chunks: Chunks, streams: Streams | None = None) -> Iterator[Doubles]:
    """Negative log-likelihoods of the scored positions of every chunk, float64, in order."""
    scores = ModelScores(session.network, chunks, streams)
    if streams is None:
        session.network.load()
    for first, stop in chunks.batches():
        scores.begin(first, stop)
        for chunk in range(first, stop):
            yield chunk_nll(scores, chunks, chunk)


def chunk_nll(scores: ModelScores, chunks: Chunks, chunk: int) -> Doubles:
    """Negative log-likelihoods of the scored positions of one chunk, float64."""
    parts = []
    for block in blocks(chunks, chunk, scores.network.vocabulary):
        log_probs = scores.block(block)
        parts.append(-numpy.take_along_axis(log_probs, targets(chunks, block)[:, None], axis=1)[:, 0])
    return numpy.concatenate(parts).astype(numpy.float64)
