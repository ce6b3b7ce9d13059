"""The part of `quantcli convert` that runs the model: calibrate, transform, encode layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantcli.calibration import compensate, tokens
from quantcli.calibration.quality import Used, Wish
from quantcli.calibration.tokens import Calibration
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor
from quantcli.plan.plan import Plan
from quantcli.report.results import CompensatedTensor
from quantcli.report.terminal import Reporter
from quantcli.runner.network import Network
from quantcli.runner.weights import holding
from quantcli.vocab.tokenizer import Tokenizer

LENGTH = 512  # positions of a chunk
FEW = 262_144  # tokens: below, `best` gains less than it could

Made = tuple[Used, dict[str, ModelTensor], list[CompensatedTensor]]


def run(model: Model, plans: Sequence[Plan], wish: Wish, threads: int, reporter: Reporter) -> Iterator[Made]:
    """Per plan: what it was calibrated with, the model's tensors (encoded or changed), and what was done to them.

    Raises UnsupportedGraph, ShortText, NonFiniteActivations, ...
    """
    network = compensate.calibration_network(model, min(LENGTH, _context(model)), threads)
    calibration = _gather(wish, network, model, reporter)
    _tell(wish, calibration, reporter)
    for one in plans:
        tensors, outcomes = _compensated(one, wish, network, calibration, threads, reporter)
        yield calibration.used, tensors, outcomes


def _context(model: Model) -> int:
    found = model.metadata.get(f"{model.architecture}.context_length")
    return found.data if found is not None and isinstance(found.data, int) else LENGTH


def _gather(wish: Wish, network: Network, model: Model, reporter: Reporter) -> Calibration:
    tokenizer = Tokenizer.from_metadata(model.metadata)
    with reporter.steps("sampling", wish.tokens // network.length) as step:

        def told(done: int, total: int) -> None:
            step(done, f"of {total} sequences")

        return tokens.gather(
            network,
            tokenizer,
            length=network.length,
            wanted=wish.tokens,
            texts=wish.texts,
            sampled=wish.sampled,
            progress=told,
        )


def _tell(wish: Wish, calibration: Calibration, reporter: Reporter) -> None:
    used = calibration.used
    reporter.note(f"note: calibrates with {used.real} tokens of text and {used.sampled} that the model wrote")
    if wish.method == "sequential" and used.real + used.sampled < FEW // 2:
        reporter.warning(f"{used.real + used.sampled} tokens to calibrate with are few: {FEW} give a better result")


def _compensated(
    one: Plan, wish: Wish, network: Network, calibration: Calibration, threads: int, reporter: Reporter
) -> tuple[dict[str, ModelTensor], list[CompensatedTensor]]:
    with reporter.steps(f"{one.file_type.name}: layers", network.settings.layers) as step:

        def told(what: str, done: int, total: int) -> None:
            step(min(done, total), what)

        made = compensate.compensate(
            network,
            _types(one),
            calibration,
            method=wish.method,
            transforms=wish.transforms,
            threads=threads,
            progress=told,
        )
    tensors = {tensor.name: tensor for tensor in made.model.tensors}
    tensors |= {name: holding(tensors[name], contents) for name, contents in made.result.contents.items()}
    return tensors, made.result.outcomes


def _types(one: Plan) -> dict[str, TensorType]:
    """Of the tensors that are quantized and not merely copied."""
    return {
        entry.tensor.name: entry.type
        for entry in one.entries
        if entry.type.quantized and not (entry.tensor.raw and entry.type is entry.tensor.stored)
    }
