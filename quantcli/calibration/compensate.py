"""A model and its planned types -> encoded tensors: transforms, then one pass that encodes layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantcli.calibration import sequential
from quantcli.calibration.merging import Merging
from quantcli.calibration.quality import COMPENSATING
from quantcli.calibration.tokens import Calibration
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks

SEARCH_TOKENS = 32_768  # that transforms look at

Progress = Callable[[str, int, int], None]  # what, how much of it is done, of how much


@dataclass(frozen=True)
class Compensated:
    """``model`` after the transforms, ``result``: its encoded tensors by name, and what was done to each."""

    model: Model
    result: sequential.Result


def calibration_network(model: Model, length: int, threads: int | None) -> Network:
    """The model ready to be calibrated: float activations and a float cache. Raises UnsupportedGraph and its kind."""
    return Network(model, make_operations("float", threads), length=length, kv_type="F32")


def compensate(
    network: Network,
    types: Mapping[str, TensorType],
    calibration: Calibration,
    *,
    method: str | None,
    transforms: Sequence[str],
    threads: int,
    progress: Progress | None = None,
) -> Compensated:
    """Encode the matrices named in ``types``. ``method``: "gptq" or "sequential" (quality.py), or None.

    Raises NonFiniteActivations, UnsupportedTransform, and what running raises.
    """

    def tell(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    for transform in transforms:
        few = _first(calibration.fit, SEARCH_TOKENS)
        model = Merging(network, types).run(transform, few, tell(transform))
        network = Network(model, network.operations, length=network.length, kv_type=network.kv_type)
    if method is None:
        return Compensated(network.model, sequential.Result())
    settings = sequential.Settings(alpha=COMPENSATING[method], threads=threads)
    told = tell(method)
    watch = None if told is None else lambda done, total, what: told(done, total)
    result = sequential.Sequential(network, types, settings, watch).run(calibration.fit, calibration.held_out)
    return Compensated(network.model, result)


def _first(chunks: Chunks, tokens: int) -> Chunks:
    """Chunks of about this many tokens, spread over all of them."""
    step = max(1, len(chunks) * chunks.length // tokens)
    return Chunks(chunks.name, chunks.tokens[::step], chunks.bos)
