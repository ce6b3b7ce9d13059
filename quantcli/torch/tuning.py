"""Tuning a quantized file towards the model that it was made from: codes, scales and norms by gradient.

Loss: the Kullback-Leibler divergence from the base's next-token distributions, mean over all positions. Codes move by a
latent whose nearest whole number they are (straight-through), scales, minima and norms by a factor near 1. Adam with
warm-up and a cosine to 0. The result has the same types and bytes as the file it started from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from quantcli import container
from quantcli.calibration.compensate import calibration_network
from quantcli.calibration.tokens import Calibration, gather
from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.errors import MetadataMismatch, ShapeMismatch, UsageError
from quantcli.loader import open_model
from quantcli.model import Model, ModelTensor
from quantcli.plan.recipes import FILE_TYPES
from quantcli.runner.arrays import Ids
from quantcli.runner.weights import Packed, holding, packed
from quantcli.torch.graph import Graded
from quantcli.torch.grids import GridMatrix
from quantcli.vocab.tokenizer import Tokenizer

AnyPath: TypeAlias = str | PathLike[str]
Progress: TypeAlias = Callable[[int, int, float], None]  # steps done, of how many, loss in nats

_SCORED = 4  # chunks of text that are judged together


@dataclass(frozen=True)
class TuneSettings:
    """How long and how fast. Rates of Adam for latents (in levels), scales and minima, norms (both as shares).

    ``chunks`` of ``length`` tokens a step; ``tokens`` of bundled text and of ``sampled`` that the base writes.
    """

    steps: int = 600
    codes: bool = True
    code_rate: float = 2e-3
    scale_rate: float = 2e-4
    norm_rate: float = 5e-4
    chunks: int = 8
    length: int = 512
    tokens: int = 65_536
    sampled: int = 262_144
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """``before``, ``after``: divergence on held-out text in nats. ``steps``: of the state that was kept, 0: the start
    was best and the file is a copy."""

    output: Path
    before: float
    after: float
    steps: int


def tune(
    base: AnyPath,
    quantized: AnyPath,
    output: AnyPath,
    settings: TuneSettings | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Tuned:
    """Tune ``quantized`` (a GGUF file) towards ``base`` (the checkpoint or file that it was made from).

    ``device``: PyTorch's name; None: a GPU where there is one. Of the states that are judged on held-out text, every
    eighth of the steps, the best is written. Raises UsageError, MetadataMismatch, ShapeMismatch, UnsupportedGraph (no
    Llama-like model), OutputExists, OutputIsInput.
    """
    chosen = settings or TuneSettings()
    if not Path(quantized).is_file():
        raise UsageError("no GGUF file", where=str(quantized), hint="tune starts from what `quantcli convert` wrote")
    with open_model(base) as whole, open_model(quantized) as start:
        convert.prepare_models(_request(quantized, output, force, {}), [start])  # checks the path before the work
        found = _Student(whole, start, chosen, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        text = _text(whole, chosen, threads)
        before, after, steps = found.train(text, progress)
        made_by = {
            "quantcli.tune.steps": container.u32(steps),
            "quantcli.tune.tokens": container.u32(text.used.real + text.used.sampled),
            "quantcli.tune.corpus": container.string(text.used.corpus),
        }
        tuned = replace(start, tensors=[found.written(tensor) for tensor in start.tensors])
        convert.execute(convert.prepare_models(_request(quantized, output, force, made_by), [tuned]))
    return Tuned(Path(output), before, after, steps)


def _request(source: AnyPath, output: AnyPath, force: bool, made_by: dict[str, container.Value]) -> ConvertRequest:
    return ConvertRequest(
        source=Path(source), file_types=(FILE_TYPES["COPY"],), output=Path(output), force=force, made_by=made_by
    )


def _text(base: Model, settings: TuneSettings, threads: int | None) -> Calibration:
    network = calibration_network(base, threads)
    tokenizer = Tokenizer.from_metadata(base.metadata)
    length = min(settings.length, network.length)
    return gather(network, tokenizer, length=length, wanted=settings.tokens, sampled=settings.sampled)


class _Student:
    """Both models' weights, those of the quantized one as what is tuned."""

    def __init__(self, base: Model, start: Model, settings: TuneSettings, device: torch.device) -> None:
        if base.architecture != start.architecture:
            raise MetadataMismatch(
                f"is a {start.architecture} model, the base a {base.architecture}", where=start.files[0]
            )
        self.settings, self.device = settings, device
        self.graph = Graded(base, settings.length, device)
        self.base = {tensor.name: _floats(tensor).to(device) for tensor in base.plain().tensors}
        self.grids: dict[str, GridMatrix] = {}
        self.plain: dict[str, Tensor] = {}
        self.norms: dict[str, torch.nn.Parameter] = {}
        for tensor in start.plain().tensors:
            own, values = self.base.get(tensor.name), _floats(tensor)
            if own is None or own.shape != values.shape:
                raise ShapeMismatch("the base has no tensor of this name and shape", where=tensor.name)
            if tensor.stored.quantized and tensor.name != "token_embd.weight":
                blocks = packed(tensor).data.reshape(tensor.rows, -1)
                grid = GridMatrix(tensor.stored.name, blocks, tensor.columns, own.cpu(), codes=settings.codes)
                self.grids[tensor.name] = grid.to(device)
            else:
                self.plain[tensor.name] = values.to(device)
            if tensor.name.endswith("norm.weight"):
                self.norms[tensor.name] = torch.nn.Parameter(torch.zeros(own.shape, device=device))

    def tensors(self) -> Callable[[str], Tensor | None]:
        """The student's weights, each computed once a step."""
        made: dict[str, Tensor] = {}

        def one(name: str, /) -> Tensor | None:
            if name not in made:
                if name in self.grids:
                    made[name] = self.grids[name]()
                elif name in self.plain:
                    made[name] = self.plain[name] * (1 + self.norms[name]) if name in self.norms else self.plain[name]
            return made.get(name)

        return one

    def loss(self, tokens: Tensor) -> Tensor:
        """Divergence of [S, T] tokens, mean over positions, nats."""
        with torch.no_grad():
            wanted = log_softmax(self.graph.logits(tokens, self.base.get), dim=-1)
        own = log_softmax(self.graph.logits(tokens, self.tensors()), dim=-1)
        return (wanted.exp() * (wanted - own)).sum(-1).mean()

    @torch.no_grad()
    def judged(self, tokens: Ids) -> float:
        """The loss on all of some chunks."""
        parts = [tokens[i : i + _SCORED] for i in range(0, len(tokens), _SCORED)]
        return sum(float(self.loss(self._ids(part))) * len(part) for part in parts) / max(1, len(tokens))

    def _ids(self, tokens: Ids) -> Tensor:
        return torch.from_numpy(tokens.astype(numpy.int64)).to(self.device)

    def train(self, text: Calibration, progress: Progress | None) -> tuple[float, float, int]:
        """(held-out loss before, of the state that is kept, its steps)."""
        settings = self.settings
        fit, held = text.fit.inputs(0, len(text.fit)), text.held_out.inputs(0, len(text.held_out))
        optimizer = torch.optim.Adam(self._groups(), betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        best = before = self.judged(held)
        kept, kept_steps = self._state(), 0
        for step, tokens in enumerate(self._batches(fit), 1):
            loss = self.loss(self._ids(tokens))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step, settings.steps, float(loss.detach()))
            if step % max(1, settings.steps // 8) == 0 or step == settings.steps:
                now = self.judged(held)
                if now < best:
                    best, kept, kept_steps = now, self._state(), step
        self._restore(kept)
        return before, best, kept_steps

    def _groups(self) -> list[dict[str, object]]:
        settings, grids = self.settings, self.grids.values()
        latents = [grid.latent for grid in grids if grid.latent is not None]
        factors = [part for grid in grids for part in (grid.scales, grid.minima) if part.requires_grad]
        rated = (
            (latents, settings.code_rate),
            (factors, settings.scale_rate),
            ([*self.norms.values()], settings.norm_rate),
        )
        return [{"params": group, "lr": rate} for group, rate in rated if group]

    def _rate(self, step: int) -> float:
        """5 % warm-up, then a cosine to 0."""
        warm = max(1, self.settings.steps // 20)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.settings.steps - warm)))

    def _batches(self, fit: Ids) -> Iterator[Ids]:
        """Chunks in an order that the seed decides, all of them before any comes again."""
        random, order = numpy.random.default_rng(self.settings.seed), numpy.empty(0, numpy.int64)
        for _ in range(self.settings.steps):
            while len(order) < self.settings.chunks:
                order = numpy.concatenate([order, random.permutation(len(fit))])
            yield fit[order[: self.settings.chunks]]
            order = order[self.settings.chunks :]

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [*(one for grid in self.grids.values() for one in grid.parameters()), *self.norms.values()]

    def _state(self) -> list[Tensor]:
        return [one.detach().to("cpu", copy=True) for one in self._parameters()]

    @torch.no_grad()
    def _restore(self, state: list[Tensor]) -> None:
        for one, value in zip(self._parameters(), state, strict=True):
            one.copy_(value)

    @torch.no_grad()
    def written(self, tensor: ModelTensor) -> ModelTensor:
        """The tensor with what was tuned of it."""
        if tensor.name in self.grids:
            grid = self.grids[tensor.name].cpu()
            return holding(tensor, Packed(grid.type, grid.blocks()))
        if tensor.name in self.norms:
            values = self.plain[tensor.name] * (1 + self.norms[tensor.name])
            return holding(tensor, Packed.of(values.cpu().numpy().astype(numpy.float32)))
        return tensor


def _floats(tensor: ModelTensor) -> Tensor:
    rows = numpy.ascontiguousarray(tensor.reader.read_rows(0, tensor.rows))
    return torch.from_numpy(rows.copy()).reshape(tensor.shape[::-1])
