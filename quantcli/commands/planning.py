"""The part of `quantcli convert` and `quantcli plan` that finds the types for a size: run the model, solve, explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy

from quantcli.calibration.sensitivity import Found, Probing
from quantcli.commands.compensating import Ready
from quantcli.ggml.tensor_types import TensorType
from quantcli.plan import budget
from quantcli.plan.budget import Choosing, Freedom
from quantcli.plan.plan import Plan
from quantcli.report.terminal import Reporter
from quantcli.statistics.imatrix import Importance

Make = Callable[[Mapping[str, TensorType], Importance | None], Plan]  # (types, importance) -> plan
PERCENT = 100
IMPORTANCE = "planning"  # how the importance that planning finds is called


@dataclass(frozen=True)
class Planning:
    """One model's costs. ``importance``: of the inputs that were seen, for encoders that get none otherwise."""

    choosing: Choosing
    found: Found
    importance: Importance | None


def prepare(prepared: Ready, freedom: Freedom, make: Make, reporter: Reporter) -> Planning:
    """Find what every type of every free tensor costs. Raises what running raises."""
    wish, kept = prepared.wish, prepared.kept
    free = budget.free_tensors(make({}, None), lambda types: make(types, None))
    with reporter.steps("planning", PERCENT) as step:

        def told(what: str, done: int, total: int) -> None:
            step(PERCENT * done // max(total, 1), what)

        found = Probing(
            network=prepared.network,
            calibration=prepared.calibration,
            compensates=wish.method is not None,
            threads=prepared.threads,
            known=kept.known,
            folder=kept.folder,
            progress=told,
            gradients=prepared.gradients,
        ).find({name: freedom.types(name, columns) for name, columns in free.items()})
    importance = importance_of(found) if wish.method is None else None
    choosing = Choosing.of(lambda types: make(types, importance), freedom, found.losses)
    return Planning(choosing, found, importance)


def importance_of(found: Found) -> Importance:
    """What planning saw of the matrices' inputs, as an importance matrix."""
    sums = {
        name: one.importance.astype(numpy.float64) * numpy.maximum(one.tokens, 1)[:, None]
        for name, one in found.costs.items()
    }
    counts = {name: numpy.maximum(one.tokens, 1) for name, one in found.costs.items()}
    return Importance(IMPORTANCE, sums, counts, ["quantcli"])
