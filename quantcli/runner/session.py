"""A model opened for running: the network, its vocabulary, and how its products round."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from quantcli import architectures, loader, places
from quantcli.errors import UnsupportedGraph, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.model import Model
from quantcli.report.measurements import RunnerModel
from quantcli.runner.encoder_decoder import EncoderDecoder
from quantcli.runner.network import Network
from quantcli.runner.operations import ACTIVATIONS, Operations
from quantcli.runner.settings import RANKS
from quantcli.sources import ways
from quantcli.sources.checkpoint import hub_name
from quantcli.vocab.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a model is run. ``activations`` None: "q8" for quantized models, "float" for others.

    ``exact`` means float32 throughout (activations and cache). ``kv_type`` None: F16, F32 where exact.
    """

    activations: str | None = None
    exact: bool = False
    kv_type: str | None = None
    threads: int | None = None
    length: int | None = None  # positions that will be asked for

    def __post_init__(self) -> None:
        if self.activations is not None and self.activations not in ACTIVATIONS:
            raise UsageError(
                f"there are no activations {self.activations!r}",
                where="--activations",
                hint=f"known: {', '.join(ACTIVATIONS)}",
            )
        if self.exact and (self.activations not in (None, "float") or (self.kv_type or "F32").upper() != "F32"):
            raise UsageError("--exact means float activations and a float cache", hint="leave out the other option")


@dataclass
class Session:
    """A model that is ready. ``tokenizer`` is None until asked for with `vocabulary`."""

    model: Model
    network: Network
    activations: str
    path: Path
    options: RunOptions
    _tokenizer: list[Tokenizer] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without suffix, or the folder's; in a cache of the hub the repository's."""
        return hub_name(self.path)[1].removesuffix(".gguf")

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary in use. Raises BadTokenizer, UnsupportedFile."""
        if not self._tokenizer:
            self._tokenizer.append(Tokenizer.from_metadata(self.model.metadata))
        return self._tokenizer[0]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(tensor_types.tensor_bytes(t.stored if t.raw else t.type, t.shape) for t in self.model.tensors)

    def describe(self) -> RunnerModel:
        """What every result says about the model."""
        weights = sum(tensor.rows * tensor.columns for tensor in self.model.tensors)
        return {
            "name": self.name,
            "architecture": self.model.architecture,
            "bytes": sum(map(places.size, self.model.weight_files)),
            "bpw": 8 * self.tensor_bytes / max(weights, 1),
            "activations": self.activations,
            "kv_type": self.network.kv_type,
            "exact": self.options.exact,
        }

    def close(self) -> None:
        self.model.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def is_quantized(model: Model) -> bool:
    """Whether any matrix is stored in a quantized type."""
    return any(tensor.stored.quantized for tensor in model.tensors)


def open_session(
    path: str | os.PathLike[str], options: RunOptions | None = None, *, both_sides: bool = False, predicts: bool = True
) -> Session:
    """Open the checkpoint folder or GGUF file at ``path`` for running. Weights are read when first used.

    ``both_sides``: also models with an encoder beside the decoder, which are refused otherwise. ``predicts``: models
    that predict no next tokens are refused.
    """
    options = options or RunOptions()
    path = ways.find(path)
    model = loader.open_model(path)
    try:
        activations = options.activations or ("q8" if is_quantized(model) and not options.exact else "float")
        kv_type = (options.kv_type or ("F32" if options.exact else "F16")).upper()
        operations = make_operations(activations, options.threads)
        graph = architectures.find(model.architecture).graph
        kind = EncoderDecoder if both_sides and graph is not None and graph.encoder_decoder else Network
        network = kind(model, operations, length=options.length, kv_type=kv_type, beyond=True)
        if predicts:
            _require_language_model(network, path)
        return Session(model, network, activations, Path(os.path.abspath(path)), options)
    except BaseException:
        model.close()
        raise


def _require_language_model(network: Network, path: str | os.PathLike[str]) -> None:
    """Raises UnsupportedGraph for a model that predicts no next tokens."""
    settings = network.settings
    if settings.causal and settings.pooling != RANKS:
        return
    what = "sees both directions" if not settings.causal else "ranks texts"
    raise UnsupportedGraph(
        f"a model that {what} predicts no next tokens",
        where=network.model.name,
        hint=f"its vectors: quantcli embed {shlex.quote(os.fspath(path))} -f LINES",
    )


def make_operations(activations: str, threads: int | None) -> Operations:
    """The operations in C; models that run side by side share one pool of threads."""
    return _shared_operations(activations, threads, kernels.isa())


@cache
def _shared_operations(activations: str, threads: int | None, isa: str) -> Operations:
    """One for each instruction set: their sums differ in the last bits."""
    from quantcli.runner.products import Products

    return Products(activations, threads, isa)
