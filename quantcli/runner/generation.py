"""Text from a model: a prompt is read at once, then token after token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy

from quantcli.errors import ContextTooLong, UsageError
from quantcli.report.measurements import GenerationResult
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.encoder_decoder import EncoderDecoder
from quantcli.runner.network import Network
from quantcli.runner.replay import Stepper
from quantcli.runner.sampling import Sampler, Sampling
from quantcli.runner.session import Session

PIECE = 512  # prompt tokens that are read at a time


@dataclass
class Generation:
    """What was generated, filled while `tokens` runs. Seconds of reading the prompt and of generating."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    prompt_seconds: float = 0.0
    seconds: float = 0.0
    stopped: str = "length"  # or "end" (the model ended its answer), "context" (no room left)

    def summary(self) -> GenerationResult:
        """Ids, counts and speeds for a result."""
        later = max(len(self.tokens) - 1, 0)  # the first one comes from the prompt's logits
        return {
            "tokens": self.tokens,
            "stopped": self.stopped,
            "prompt_tokens": len(self.prompt),
            "prompt_tokens_per_second": len(self.prompt) / self.prompt_seconds if self.prompt_seconds else 0.0,
            "tokens_per_second": later / self.seconds if self.seconds else 0.0,
        }


def prompt_ids(session: Session, prompt: str) -> list[int]:
    """Ids of a plain prompt, with bos where the vocabulary says so. Raises UsageError for an empty one."""
    tokenizer = session.tokenizer
    ids = tokenizer.encode(prompt, add_special=False, parse_special=True)
    if tokenizer.add_bos and tokenizer.bos is not None:
        ids.insert(0, tokenizer.bos)
    if isinstance(session.network, EncoderDecoder) and tokenizer.add_eos and tokenizer.eos is not None:
        ids.append(tokenizer.eos)
    if not ids:
        raise UsageError("the prompt is empty", where="-p", hint="give the beginning of a text")
    return ids


def generate(
    session: Session, generation: Generation, count: int, sampling: Sampling, *, ignore_end: bool = False
) -> Iterator[int]:
    """Yield up to ``count`` tokens that continue ``generation.prompt``. Raises ContextTooLong."""
    network, end = session.network, session.tokenizer.end_of_generation
    # a text that is read apart takes no room from the one that is written
    room = network.length - (1 if isinstance(network, EncoderDecoder) else len(generation.prompt))
    if room < 1 or len(generation.prompt) > network.length:
        raise ContextTooLong(
            f"the prompt has {len(generation.prompt)} tokens, there is room for {network.length}",
            where=session.name,
            hint="shorten the prompt, or give a larger -c",
        )
    sampler = Sampler(sampling)
    start = time.perf_counter()
    logits, step = _begun(network, generation.prompt, count)
    generation.prompt_seconds = time.perf_counter() - start
    start = time.perf_counter()
    for index in range(min(count, room)):
        token = sampler.choose(logits)
        if token in end and not ignore_end:
            generation.stopped = "end"
            break
        generation.tokens.append(token)
        yield token
        if index + 1 < min(count, room):
            logits = step(token)
        generation.seconds = time.perf_counter() - start
    else:
        generation.stopped = "length" if count <= room else "context"


def _begun(network: Network, prompt: list[int], count: int) -> tuple[Floats, Stepper]:
    """The logits of the first token behind the prompt, and what gives those of the others."""
    if isinstance(network, EncoderDecoder):
        memory = network.read(numpy.array([prompt], numpy.int32), min(network.length, 1 + count))
        step = Stepper(network, memory)
        return step(network.start), step
    cache = network.new_cache(1, min(network.length, len(prompt) + count))
    logits = _read(network, prompt, cache)
    return logits, Stepper(network, cache)


def _read(network: Network, prompt: list[int], cache: Cache) -> Floats:
    """Put the prompt into the cache piece by piece; the logits [V] of its last position."""
    for start in range(0, len(prompt), PIECE):
        piece = numpy.array([prompt[start : start + PIECE]], numpy.int32)  # one sequence
        logits = network.forward(piece, cache, first_output=piece.shape[1] - 1)
    last: Floats = logits[0, -1]
    return last
