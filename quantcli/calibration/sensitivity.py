"""What every type of every tensor would cost the model: an estimate of the divergence that it alone causes.

Of a matrix: kappa tr(E H E^T), with the error E of a plain encoding in the type, the second moment H of its inputs, and
kappa, how much the model minds, from one probe in one type (probes.py): the change is made, the rest of the model
runs, the divergence is measured. Deep models are probed in some layers; the others' kappa lies between. The embeddings
and the output matrix are probed in every type.

`Sensitivity` is the interface: whoever has other estimates gives the same losses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy

from quantcli.calibration import float_stream, probes, tables, weight_errors
from quantcli.calibration.encoding import Settings, StageEncoder
from quantcli.calibration.float_stream import LayerMoments
from quantcli.calibration.folder import Folder
from quantcli.calibration.gradients import Gradients
from quantcli.calibration.tokens import Calibration
from quantcli.calibration.weight_errors import Costs
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.methods import compensation
from quantcli.methods.compensation import Metric
from quantcli.runner.arrays import Doubles, Floats
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, PackedMatrix

MOMENT_TOKENS = 16_384  # for H
MOST_TOKENS, FEWEST_TOKENS = 4096, 2048  # of a probe
TOGETHER = 1024  # tokens that all probes of a batch see
WORK = 2.5e13  # products (additions counted) that probes may take before layers are left out
PROBED = ("Q3_K", "Q4_0")  # the first that fits
TABLE_BITS = 4.5  # of the type in which a table's compensation is measured

Types = Mapping[str, Sequence[TensorType]]
Progress = Callable[[str, int, int], None]  # what, how much of it is done, of how much


@dataclass(frozen=True)
class Found:
    """``losses``: tensor -> type -> divergence; ``kappa``, ``costs``: of the matrices."""

    losses: dict[str, dict[str, float]]
    kappa: dict[str, float] = field(default_factory=dict)
    costs: dict[str, Costs] = field(default_factory=dict)


class Sensitivity(Protocol):
    """Finds what types cost."""

    def find(self, types: Types) -> Found:
        """Of the tensors that ``types`` names and that the model multiplies with."""
        ...


@dataclass(frozen=True)
class Probing:
    """By forward passes alone. ``known``: moments that `quantcli calibrate` kept; ``folder`` keeps what is found here.

    ``compensates``: whether the tables will be encoded with a Hessian.
    """

    network: Network
    calibration: Calibration
    compensates: bool
    threads: int = 1
    known: Folder | None = None
    folder: Folder | None = None
    progress: Progress | None = None
    gradients: Gradients | None = None

    def find(self, types: Types) -> Found:
        costs = self._costs(types)
        kappa = self._kappa(costs)
        losses = {
            name: {one.name: kappa[name] * cost.errors[one.name] for one in types[name]} for name, cost in costs.items()
        }
        return Found({**losses, **self._tables(types)}, kappa, costs)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)

    # ---- tr(E H E^T)

    def _costs(self, types: Types) -> dict[str, Costs]:
        types = {name: _with_probed(own, self.network.weights.columns(_base(name))) for name, own in types.items()}
        found: dict[str, Costs] = {}
        count = self.network.settings.layers
        kept = [_read_costs(self.folder, index, types) for index in range(count)]
        for one in kept:
            found |= one or {}
            if one is None:
                break
        else:
            return found
        for layer in self._layers():
            if kept[layer.index] is None:
                made = weight_errors.of_layer(layer, types, self.threads)
                _write_costs(self.folder, layer.index, made)
            found |= kept[layer.index] or made
            self._tell("moments", layer.index + 1, count)
        return found

    def _layers(self) -> Iterator[LayerMoments]:
        fit = self.calibration.fit
        if self.known is None:
            yield from float_stream.layers(self.network, probes.some_of(fit, MOMENT_TOKENS))
            return
        probe = float_stream.probe_of(self.network, fit)
        for index in range(self.network.settings.layers):
            layer = float_stream.read(self.known, self.network, index, probe)
            if layer is None:
                raise self.known.lacks(index)
            yield layer

    # ---- kappa

    def _kappa(self, costs: Mapping[str, Costs]) -> dict[str, float]:
        by_role: dict[str, dict[int, str]] = {}
        for name in costs:
            layer, role = _place(name)
            by_role.setdefault(role, {})[layer] = name
        most, tokens = self._effort(len(costs), max(map(len, by_role.values()), default=1))
        probed = {own[layer] for own in by_role.values() for layer in probes.chosen_layers(sorted(own), most)}
        measured = self._measured({name: costs[name] for name in probed}, tokens)
        found: dict[str, float] = {}
        for own in by_role.values():
            known = {
                layer: measured[name] / max(costs[name].errors[_probed_type(costs[name]).name], 1e-30)
                for layer, name in own.items()
                if name in probed
            }
            found |= {own[layer]: value for layer, value in probes.between(sorted(own), known).items()}
        return found

    def _effort(self, tensors: int, layers: int) -> tuple[int, int]:
        """(layers that are probed per role, tokens)."""
        weights = sum(
            tensor.rows * tensor.columns for tensor in self.network.model.tensors if tensor.name.startswith("blk.")
        )
        per_token = max(tensors * weights, 1)  # half of the model, two operations per weight
        tokens = int(min(max(WORK / per_token, FEWEST_TOKENS), MOST_TOKENS)) // TOGETHER * TOGETHER
        share = WORK / (per_token * tokens)
        return max(4, min(layers, round(layers * share))), tokens

    def _measured(self, costs: Mapping[str, Costs], tokens: int) -> dict[str, float]:
        """Tensor -> divergence, mean over batches of text."""
        chunks = probes.some_of(self.calibration.fit, tokens)
        step = max(1, TOGETHER // chunks.length)
        starts = range(0, max(min(len(chunks), tokens // chunks.length) // step, 1) * step, step)
        held: dict[str, Packed] = {}
        rounds = []
        for number, start in enumerate(starts):
            rounds.append(self._round(costs, chunks, start, step, held))
            self._tell("probes", number + 1, len(starts))
        return {name: float(numpy.mean([one[name] for one in rounds])) for name in costs}

    def _round(
        self, costs: Mapping[str, Costs], chunks: Chunks, start: int, step: int, held: dict[str, Packed]
    ) -> dict[str, float]:
        kept = f"probes-{start:04}-{step}"
        stored = self.folder.read(kept) if self.folder is not None else None
        if stored is not None and all(name in stored for name in costs):
            return {name: float(stored[name][0]) for name in costs}

        def changes(layer: int) -> dict[str, Packed]:
            found = {}
            for name in costs:
                if _place(name)[0] == layer:
                    if name not in held:
                        held[name] = self._changed(name, costs[name])
                    found[name] = held[name]
            return found

        made = probes.one_by_one(self.network, chunks.inputs(start, start + step), changes)
        if self.folder is not None:
            self.folder.write(kept, {name: numpy.array([value]) for name, value in made.items()})
        return made

    def _changed(self, name: str, costs: Costs) -> Packed:
        tensor = self.network.weights.tensors[name]
        matrices, columns = costs.importance.shape
        matrix = self.network.weights.matrix(_base(name), columns, tensor.rows // matrices, matrices)
        return weight_errors.encoded(matrix, _probed_type(costs), costs.importance, self.threads)

    # ---- embeddings and head

    def _tables(self, types: Types) -> dict[str, dict[str, float]]:
        wanted = {name: matrix for name, matrix in tables.of(self.network).items() if types.get(name)}
        kept = f"tables-{'compensated' if self.compensates else 'plain'}"
        stored = self.folder.read(kept) if self.folder is not None else None
        if stored is None or any(f"{name}/{one.name}" not in stored for name in wanted for one in types[name]):
            made = self._measured_tables(wanted, types)
            stored = {f"{name}/{one}": numpy.array([loss]) for name, own in made.items() for one, loss in own.items()}
            if self.folder is not None:
                self.folder.write(kept, stored)
        return {name: {one.name: float(stored[f"{name}/{one.name}"][0]) for one in types[name]} for name in wanted}

    def _measured_tables(self, wanted: Mapping[str, PackedMatrix], types: Types) -> dict[str, dict[str, float]]:
        judge = tables.Judge.of(self.network, probes.some_of(self.calibration.held_out, tables.JUDGING_TOKENS))
        gradients = self.gradients or Gradients(self.network, self.calibration.fit)
        known = tables.hessians(gradients) if self.compensates and wanted else {}
        encoder = StageEncoder({}, Settings(threads=self.threads))
        found: dict[str, dict[str, float]] = {}
        total = sum(len(types[name]) for name in wanted)
        for name, matrix in wanted.items():
            own: dict[str, float] = {}
            for one in types[name]:
                plain = Packed(one, encoder.search(matrix.decode(), one, None))
                own[one.name] = judge.divergence({name: plain}, self.calibration.fit.bos)
                self._tell("embeddings", sum(map(len, found.values())) + len(own), total)
            if known:
                gain = self._gain(matrix, types[name], known[name], own, judge, encoder)
                own = {one: loss * gain for one, loss in own.items()}
            found[name] = own
        return found

    def _gain(
        self,
        matrix: PackedMatrix,
        types: Sequence[TensorType],
        hessian: Doubles,
        plain: Mapping[str, float],
        judge: tables.Judge,
        encoder: StageEncoder,
    ) -> float:
        """What compensation leaves of a table's loss, measured in one type: much the same in all."""
        middle = min(
            (one for one in types if compensation.takes(one)), key=lambda one: abs(one.bpw - TABLE_BITS), default=None
        )
        if middle is None:
            return 1.0
        metric = Metric.of(hessian, group=compensation.columns_together(middle))
        _, compensated = encoder.table(matrix, middle, metric)
        left = judge.divergence({matrix.name: compensated}, self.calibration.fit.bos)
        return min(left / max(plain[middle.name], 1e-30), 1.0)


def _place(name: str) -> tuple[int, str]:
    """(layer, name in the layer)."""
    match = re.match(r"blk\.(\d+)\.(.*)", name)
    return (int(match[1]), match[2]) if match else (-1, name)


def _base(name: str) -> str:
    return name.removesuffix(".weight")


def _probed_type(costs: Costs) -> TensorType:
    return _probed(costs.importance.shape[1])


def _probed(columns: int) -> TensorType:
    return next(BY_NAME[name] for name in PROBED if columns % BY_NAME[name].block == 0)


def _with_probed(types: Sequence[TensorType], columns: int) -> list[TensorType]:
    return list(dict.fromkeys([*types, _probed(columns)]))


# ---- kept in the folder of statistics


def _file(index: int) -> str:
    return f"errors-{index:04}"


def _read_costs(folder: Folder | None, index: int, types: Types) -> dict[str, Costs] | None:
    arrays = folder.read(_file(index)) if folder is not None else None
    if arrays is None:
        return None
    found: dict[str, Costs] = {}
    for key in arrays:
        if not key.endswith("/importance"):
            continue
        name = key.removesuffix("/importance")
        if name not in types:
            continue
        errors = {one.name: arrays.get(f"{name}/{one.name}") for one in types[name]}
        if any(value is None for value in errors.values()):
            return None
        importance: Floats = arrays[key].astype(numpy.float32)
        found[name] = Costs(
            {one: float(value[0]) for one, value in errors.items() if value is not None},
            importance,
            arrays[f"{name}/tokens"].astype(numpy.float64),
        )
    return found


def _write_costs(folder: Folder | None, index: int, costs: Mapping[str, Costs]) -> None:
    if folder is None:
        return
    arrays: dict[str, numpy.ndarray] = {}
    for name, one in costs.items():
        arrays[f"{name}/importance"], arrays[f"{name}/tokens"] = one.importance, one.tokens
        arrays |= {f"{name}/{key}": numpy.array([value]) for key, value in one.errors.items()}
    folder.write(_file(index), arrays)
