"""What a stage of matrices is encoded with: found from sums of moments, or recorded by an earlier run.

Sums, factorisations and solutions differ in their last bits from machine to machine; the encoders do not. So a record
holds the results of all of them, and from one record the same bytes follow everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy
from numpy.typing import NDArray

from quantcli.calibration.folder import Folder
from quantcli.calibration.moments import Moments, excess
from quantcli.errors import BadStatistics
from quantcli.methods.compensation import Metric
from quantcli.methods.coupling import Coupling, Encode
from quantcli.runner.arrays import Bytes, Doubles, Floats

Arrays = dict[str, NDArray[numpy.generic]]

APART = "apart"


@dataclass(frozen=True)
class Verdict:
    """Of two encodings on held-out tokens: what each misses, relative to the outputs' mean square; the better one."""

    plain: float
    compensated: float
    keep: bool  # the compensated one
    tokens: int  # to fit with


class Evidence(Protocol):
    """Of all matrices of a stage; ``number`` counts the sums there are: 0 for one that all share, else a tensor's
    experts, or the stage's tensors (``apart``)."""

    @property
    def apart(self) -> bool:
        """Whether every tensor of the stage has sums of its own."""
        ...

    def metric(self, number: int, group: int) -> Metric:
        """For encoders that code ``group`` columns together."""
        ...

    def goal(self, name: str, number: int, asked: Asked) -> tuple[Floats, Bytes | None]:
        """What is encoded in place of a matrix, float32 [m, n], and its blocks where they were needed."""
        ...

    def verdict(
        self, name: str, number: int, values: Floats, plain: Floats, compensated: Floats, rows: Rows | None
    ) -> Verdict:
        """Which of two encodings of ``values`` [m, n] is better, all decoded."""
        ...


@dataclass(frozen=True)
class Rows:
    """How a matrix's rows mind each other's errors: A of two halves of a text, [2, parts, w, w] (coupling.py).

    ``encode``: rows -> their blocks, and these decoded.
    """

    information: Floats
    encode: Encode


@dataclass(frozen=True)
class Asked:
    """A matrix ``values`` [m, n], float32, that is to be encoded.

    ``alpha``: how much of (W C + R) H~^-1 it makes up for. ``rows`` None: they don't mind each other. ``moved``: what
    another matrix's errors ask of this one.
    """

    values: Floats
    metric: Metric
    alpha: float | None
    rows: Rows | None
    moved: Floats | None


@dataclass
class Pair:
    """The sums of one matrix's inputs over the tokens to fit and the tokens to check with."""

    fit: Moments
    held_out: Moments


@dataclass
class Found:
    """From sums. ``record`` fills with everything that was answered."""

    pairs: Sequence[Pair]
    hessians: Sequence[Doubles]
    damping: float
    apart: bool = False
    record: Arrays = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Sequence[Pair], *, routed: bool, damping: float) -> Found:
        """``routed``: every expert has inputs of its own, some of them few; else one pair, or one of every tensor."""
        hessians = _shrunk(pairs) if routed else [pair.fit.mean_hessian() for pair in pairs]
        found = cls(pairs, hessians, damping, apart=not routed and len(pairs) > 1)
        if found.apart:
            found.record[APART] = numpy.array([True])
        for number, pair in enumerate(pairs):
            for name, sums in (("cross", pair.fit.cross), ("residual", pair.fit.residual)):
                if sums is not None and pair.fit.tokens:
                    found.record[f"{name}/{number}"] = (sums / pair.fit.weight).astype(numpy.float32)
        return found

    def metric(self, number: int, group: int) -> Metric:
        metric = Metric.of(self.hessians[number], damping=self.damping, group=group)
        prefix = f"metric/{number}/{group}"
        self.record[f"{prefix}/hessian"] = metric.hessian
        self.record[f"{prefix}/order"] = metric.order
        self.record[f"{prefix}/factor"] = metric.factor.T  # by columns in memory
        self.record[f"{prefix}/damping"] = numpy.array([metric.damping])
        if metric.pivots is not None:
            self.record[f"{prefix}/pivots"] = metric.pivots
        return metric

    def goal(self, name: str, number: int, asked: Asked) -> tuple[Floats, Bytes | None]:
        shift = self._shift(number, asked.values, asked.metric) if asked.alpha else None
        target = asked.values if shift is None else asked.values + numpy.float32(asked.alpha) * shift
        if asked.moved is not None:
            target = target + asked.moved
            self.record[f"goal/{name}/{number}"] = target
            return target, None
        coupling = None if asked.rows is None else Coupling.chosen(asked.rows.information)
        if asked.rows is not None and coupling is not None:
            goals, blocks = coupling.goals(target, asked.rows.encode)
            self.record[f"goal/{name}/{number}"] = goals
            return goals, blocks
        if shift is not None:
            self.record[f"shift/{name}/{number}"] = shift
        return target, None

    def _shift(self, number: int, values: Floats, metric: Metric) -> Floats | None:
        moments = self.pairs[number].fit
        if not moments.tokens or (moments.cross is None and moments.residual is None):
            return None
        pull = moments.pull(values)
        solved = numpy.linalg.solve(metric.hessian.astype(numpy.float64), pull.T)
        shift: Floats = numpy.ascontiguousarray(solved.T, numpy.float32)
        return shift

    def verdict(
        self, name: str, number: int, values: Floats, plain: Floats, compensated: Floats, rows: Rows | None
    ) -> Verdict:
        pair, information = self.pairs[number], None if rows is None else rows.information.sum(axis=0)
        hessian, pull = pair.held_out.mean_hessian(), pair.held_out.pull(values)
        whole = excess(values, hessian, numpy.zeros(values.shape), information) or 1.0
        missed = [excess(one - values, hessian, pull, information) / whole for one in (plain, compensated)]
        keep = pair.held_out.tokens == 0 or missed[1] <= missed[0]
        self.record[f"verdict/{name}/{number}"] = numpy.array([*missed, keep, pair.fit.tokens], numpy.float64)
        return Verdict(missed[0], missed[1], keep, pair.fit.tokens)


@dataclass(frozen=True)
class Recorded:
    """From an earlier run: ``arrays`` of the file ``where``, which ``hint`` makes again. Raises BadStatistics where
    something is missing, or cannot be of this matrix."""

    arrays: Mapping[str, NDArray[numpy.generic]]
    where: str
    hint: str

    @classmethod
    def of(cls, store: Folder, name: str, arrays: Mapping[str, NDArray[numpy.generic]]) -> Recorded:
        """The arrays of a file of the folder."""
        return cls(arrays, str(store.path / f"{name}.safetensors"), store.again(name))

    @property
    def apart(self) -> bool:
        return APART in self.arrays

    def _bad(self, message: str) -> BadStatistics:
        return BadStatistics(message, where=self.where, hint=self.hint)

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[numpy.generic]:
        """One array; of the ``shape`` that it must have, where that is known."""
        found = self.arrays.get(name)
        if found is None:
            raise self._bad(f"lacks {name}")
        if shape is not None and found.shape != shape:
            raise self._bad(f"{name} has the shape {found.shape}, not {shape}")
        return found

    def metric(self, number: int, group: int) -> Metric:
        prefix = f"metric/{number}/{group}"
        found = Metric(
            self.array(f"{prefix}/hessian").astype(numpy.float32),
            self.array(f"{prefix}/order").astype(numpy.int32),
            numpy.ascontiguousarray(self.array(f"{prefix}/factor"), numpy.float32).T,
            float(self.array(f"{prefix}/damping", (1,))[0]),
            self.array(f"{prefix}/pivots").astype(numpy.float32) if group > 1 else None,
        )
        try:
            _ = found.native  # it looks at all of them, and is kept for the kernels
        except (ValueError, IndexError) as error:
            raise self._bad(f"{prefix}: {error}") from error
        return found

    def goal(self, name: str, number: int, asked: Asked) -> tuple[Floats, Bytes | None]:
        keys = {kind: f"{kind}/{name}/{number}" for kind in ("goal", "shift")}
        if keys["goal"] in self.arrays:
            return self.array(keys["goal"], asked.values.shape).astype(numpy.float32), None
        if keys["shift"] in self.arrays and asked.alpha:
            shift = self.array(keys["shift"], asked.values.shape).astype(numpy.float32)
            return asked.values + numpy.float32(asked.alpha) * shift, None
        return asked.values, None

    def verdict(
        self, name: str, number: int, values: Floats, plain: Floats, compensated: Floats, rows: Rows | None
    ) -> Verdict:
        first, second, keep, tokens = self.array(f"verdict/{name}/{number}", (4,)).astype(numpy.float64).tolist()
        return Verdict(first, second, bool(keep), int(tokens))


def _shrunk(pairs: Sequence[Pair]) -> list[Doubles]:
    """Hessians of experts, each drawn towards that of all as if it had seen as many tokens more as it has columns."""
    total = sum((pair.fit.hessian for pair in pairs), numpy.zeros_like(pairs[0].fit.hessian))
    common = total / max(sum(pair.fit.tokens for pair in pairs), 1)
    added = len(common)
    return [(pair.fit.hessian + added * common) / (pair.fit.tokens + added) for pair in pairs]
