"""The tokens that a conversion calibrates with: the bundled text, the user's, and what the model itself writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy

from quantcli.calibration import corpus
from quantcli.calibration.corpus import Message, bundled_text
from quantcli.calibration.quality import Used
from quantcli.calibration.sampled import sample
from quantcli.chat import sandbox
from quantcli.errors import ShortText
from quantcli.runner import chat
from quantcli.runner.arrays import Ids
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks, read_text, tokenize
from quantcli.system import usable_cores
from quantcli.vocab.tokenizer import Tokenizer

HELD_OUT = 8  # every eighth chunk judges and does not fit
FEWEST = 16  # chunks
SEED = 20_260_101


@dataclass(frozen=True)
class Calibration:
    """Chunks to fit with and to check with, and what they were made of."""

    fit: Chunks
    held_out: Chunks
    used: Used
    written: Ids  # chunks of the model's own text


def gather(
    network: Network,
    tokenizer: Tokenizer,
    *,
    length: int,
    wanted: int,
    texts: Sequence[Path] = (),
    sampled: int = 0,
    written: Ids | None = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Chunks of ``length``: of ``texts`` and the bundled one at most ``wanted`` tokens, and ``sampled`` of the model's.

    ``written``: chunks that the model wrote earlier, used
    instead of new ones. The user's texts come first. Raises ShortText, MissingFile.
    """
    bos = tokenizer.bos if tokenizer.add_bos else None
    real = _real(tokenizer, [*texts, Path(bundled_text())], length, wanted)
    corpus = hashlib.sha256(numpy.ascontiguousarray(real, "<i4").tobytes()).hexdigest()
    count = sampled // length if network.settings.causal else 0  # who sees both directions writes nothing
    if written is None and count:
        random = numpy.random.default_rng(SEED)
        starts = real.reshape(-1)[random.integers(real.size, size=count)]
        written = sample(network, starts, length, bos=bos, seed=SEED, progress=progress)
    if written is None:
        written = numpy.empty((0, length), numpy.int32)
    everything = numpy.concatenate([real, written])
    held = numpy.arange(len(everything)) % HELD_OUT == HELD_OUT - 1
    return Calibration(
        Chunks("calibration", everything[~held], bos),
        Chunks("held-out", everything[held], bos),
        Used(real.size, written.size, corpus),
        written,
    )


def _real(tokenizer: Tokenizer, paths: Sequence[Path], length: int, wanted: int) -> Ids:
    """Chunks [n, length], at most ``wanted`` tokens: own texts, conversations, the bundled text. Raises ShortText."""
    *own, bundled = ([tokenize(tokenizer, read_text(path))] for path in paths)
    chunks = []
    left = max(wanted // length, FEWEST)
    for ids in [*(part for parts in own for part in parts), _conversations(tokenizer), *bundled]:
        count = min(len(ids) // length, left)
        chunks.append(ids[: count * length].reshape(count, length))
        left -= count
    found = numpy.concatenate(chunks)
    if len(found) < FEWEST:
        raise ShortText(
            f"{found.size} tokens to calibrate with, at least {FEWEST * length} are needed",
            where=str(paths[0]),
            hint="give more text with --calibration",
        )
    return found


def _conversations(tokenizer: Tokenizer) -> Ids:
    """Ids of the bundled conversations as the model's chat template writes them; none without a template."""
    if not tokenizer.chat_template or not sandbox.available():
        return numpy.empty(0, numpy.int32)

    def render(messages: Sequence[Message]) -> str:
        return chat.render(tokenizer, messages, add_generation_prompt=False)

    with ThreadPoolExecutor(usable_cores()) as pool:  # every template runs in a process of its own
        texts = list(pool.map(lambda conversation: corpus.text_of(conversation, render), corpus.dialogues()))
    ids = [token for text in texts for token in chat.encode(tokenizer, text)]
    return numpy.array(ids, numpy.int32)
