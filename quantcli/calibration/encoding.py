"""The matrices of one stage become blocks: compensated, or plain where that is better on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy

from quantcli.calibration.capture import Stage
from quantcli.calibration.evidence import Asked, Evidence, Found, Pair, Recorded, Rows, Verdict
from quantcli.calibration.folder import COMPLETE, Folder
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import compensation, coupling
from quantcli.methods.compensation import THOROUGH, Metric, Work
from quantcli.methods.plain import search_for
from quantcli.report.results import CompensatedTensor
from quantcli.runner.arrays import Bytes, Floats
from quantcli.runner.weights import Packed, PackedMatrix

ENCODED_ROWS = 64  # rows of a matrix that one thread encodes at a time; of fewer each gets its share
LEAST_ROWS = 16  # that the kernels take side by side


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``alpha``: how far a matrix makes up for what went wrong before it; None: one stream, nothing is known of it.

    ``tables``: embeddings and output matrix where they are encoded already (tables.py). ``outputs``: by tensor name
    the second moments of gradients at a matrix's outputs, [2, parts, w, w], ``pairs`` those at its rows and at those of
    the matrix before it in the stage, [2, rows, 2, 2] (gradients.py).
    """

    alpha: float | None = 0.5
    damping: float = 0.01
    work: Work = THOROUGH
    threads: int = 1
    tables: Mapping[str, Packed] = field(default_factory=dict)
    outputs: Mapping[str, Floats] = field(default_factory=dict)
    pairs: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class StageEncoder:
    """Encodes stages to the ``types`` given by tensor name."""

    types: Mapping[str, TensorType]
    settings: Settings

    def encode_kept(
        self, stage: Stage, store: Folder | None, sums: Callable[[], Sequence[Pair]]
    ) -> tuple[dict[str, Packed], list[CompensatedTensor]]:
        """`encode` with what ``store`` knows of the stage, or with what ``sums`` finds, which is then kept there."""
        if not any(name in self.types for name in stage.names):
            return {}, []
        name = stage.names[0].removesuffix(".weight")
        stored = store.read(name) if store is not None else None
        if store is not None and stored is not None:
            return self.encode(stage, Recorded.of(store, name, stored))
        if store is not None and store.has(COMPLETE):  # nothing was summed
            raise store.lost(name)
        found = Found.of(sums(), routed=stage.routed, damping=self.settings.damping)
        made = self.encode(stage, found)
        if store is not None:
            store.write(name, found.record)
        return made

    def embeddings(self, matrix: PackedMatrix) -> dict[str, Packed]:
        """The token embeddings where they have a type: as they are encoded already, or by the plain search."""
        tensor_type = self.types.get(matrix.name)
        if tensor_type is None:
            return {}
        if matrix.name in self.settings.tables:
            return {matrix.name: self.settings.tables[matrix.name]}
        return {matrix.name: Packed(tensor_type, self.search(matrix.decode(), tensor_type, None))}

    def table(self, matrix: PackedMatrix, tensor_type: TensorType, metric: Metric) -> tuple[Packed, Packed]:
        """A table of embeddings or the output matrix by the plain search for ``metric``, and compensated."""
        values = matrix.decode()
        plain = self.search(values, tensor_type, metric.importance)
        return Packed(tensor_type, plain), Packed(tensor_type, self._compensated(values, tensor_type, metric))

    def encode(self, stage: Stage, evidence: Evidence) -> tuple[dict[str, Packed], list[CompensatedTensor]]:
        """The stage's tensors that have a type, encoded, and what was done to each."""
        contents, outcomes = {}, []
        metrics: dict[tuple[int, int], Metric] = {}
        error: Floats | None = None  # of the matrix before
        for place, weight in enumerate(stage.weights):
            tensor_type = self.types.get(weight.name)
            if tensor_type is None:
                continue
            group = compensation.columns_together(tensor_type) or 1
            blocks, verdicts, dampings = [], [], []
            for matrix in range(weight.matrices):
                number = place if evidence.apart else matrix
                if (number, group) not in metrics:
                    metrics[number, group] = evidence.metric(number, group)
                metric = metrics[number, group]
                data, verdict, error = self._matrix(
                    weight.decode(matrix=matrix), weight.name, tensor_type, number, metric, evidence, error
                )
                blocks.append(data)
                verdicts.append(verdict)
                dampings.append(metric.damping)
            contents[weight.name] = Packed(tensor_type, numpy.concatenate(blocks))
            outcomes.append(_outcome(weight.name, tensor_type, verdicts, max(dampings)))
        return contents, outcomes

    def _matrix(
        self,
        values: Floats,
        name: str,
        tensor_type: TensorType,
        number: int,
        metric: Metric,
        evidence: Evidence,
        before: Floats | None,
    ) -> tuple[Bytes, Verdict, Floats]:
        """Blocks, whether they are compensated, and how far they are from what they were encoded for; ``before`` is
        that of the matrix before."""

        def decoded(blocks: Bytes) -> Floats:
            return kernels.decode(tensor_type.id, blocks, len(blocks), values.shape[1])

        def compensated(rows: Floats) -> tuple[Bytes, Floats]:
            blocks = self._compensated(rows, tensor_type, metric)
            return blocks, decoded(blocks)

        plain = self.search(values, tensor_type, metric.importance)
        if not compensation.takes(tensor_type):
            return plain, Verdict(0.0, 0.0, False, 0), values - decoded(plain)
        information = self.settings.outputs.get(name)
        rows = None if information is None else Rows(information, compensated)
        moved = self._moved(name, before)
        goal, made = evidence.goal(name, number, Asked(values, metric, self.settings.alpha, rows, moved))
        if made is None:
            made = self._compensated(goal, tensor_type, metric)
        seen = decoded(plain), decoded(made)
        verdict = evidence.verdict(name, number, values, *seen, rows)
        return made if verdict.keep else plain, verdict, goal - seen[verdict.keep]

    def _moved(self, name: str, before: Floats | None) -> Floats | None:
        """What the errors of the matrix ``before`` ask of this one."""
        information = self.settings.pairs.get(name)
        factor = None if information is None or before is None else coupling.pulled(information)
        return None if factor is None or before is None else factor[:, None] * before

    def _compensated(self, target: Floats, tensor_type: TensorType, metric: Metric) -> Bytes:
        return self._in_slabs(
            lambda start, stop: compensation.encode(tensor_type, target[start:stop], metric, self.settings.work),
            len(target),
        )

    def search(self, values: Floats, tensor_type: TensorType, importance: Floats | None) -> Bytes:
        """The plain search."""
        search = search_for(tensor_type, None)
        return self._in_slabs(
            lambda start, stop: kernels.encode(tensor_type.id, values[start:stop], importance, search=search),
            len(values),
        )

    def _in_slabs(self, encode: Callable[[int, int], Bytes], rows: int) -> Bytes:
        """Rows encoded by several threads; they are independent."""
        share = -(-rows // self.settings.threads)
        slab = min(ENCODED_ROWS, max(LEAST_ROWS, -(-share // LEAST_ROWS) * LEAST_ROWS))
        bounds = [(start, min(start + slab, rows)) for start in range(0, rows, slab)]
        with ThreadPoolExecutor(self.settings.threads) as pool:
            return numpy.concatenate(list(pool.map(lambda one: encode(*one), bounds)))


def _outcome(name: str, tensor_type: TensorType, verdicts: Sequence[Verdict], damping: float) -> CompensatedTensor:
    kept = sum(verdict.keep for verdict in verdicts)
    return {
        "name": name,
        "type": tensor_type.name,
        "method": "compensated" if kept == len(verdicts) else "mixed" if kept else "plain",
        "plain": sum(verdict.plain for verdict in verdicts) / len(verdicts),
        "compensated": sum(verdict.compensated for verdict in verdicts) / len(verdicts),
        "damping": damping,
        "tokens": min(verdict.tokens for verdict in verdicts),
    }
