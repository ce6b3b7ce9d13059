"""Plans that are written together: what one read of the source serves. Parts of plans write some tensors alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from quantcli.model import ModelTensor
from quantcli.plan.plan import Plan
from quantcli.plan.shards import PlannedTensor


@dataclass(frozen=True)
class Order:
    """``tensors``: those that any of several plans writes, in writing order; ``entries``: per plan what it makes of
    each of them, None for those that it does not write."""

    tensors: list[ModelTensor]
    entries: list[list[PlannedTensor | None]]


def order(plans: Sequence[Plan]) -> Order | None:
    """The order that the plans share; None where there is none, as where they hold tensors of their own."""
    places = _places(plans[0])
    written = [[places.get(id(entry.tensor), -1) for entry in one.entries] for one in plans]
    if any(row and (row[0] < 0 or any(a >= b for a, b in pairwise(row))) for row in written):
        return None
    made = [dict(zip(row, one.entries, strict=True)) for row, one in zip(written, plans, strict=True)]
    tensors = {place: entry.tensor for row in made for place, entry in row.items()}
    every = sorted(tensors)
    return Order([tensors[place] for place in every], [[row.get(place) for place in every] for row in made])


def groups(plans: Sequence[Plan]) -> list[list[int]]:
    """The numbers of plans that share an order."""
    found: list[list[int]] = []
    for number, one in enumerate(plans):
        fitting = (group for group in found if order([*(plans[other] for other in group), one]) is not None)
        group = next(fitting, None)
        if group is None:
            found.append([number])
        else:
            group.append(number)
    return found


def _places(one: Plan) -> dict[int, int]:
    """The place of every tensor, by its identity: in the whole plan, or among the plan's own where it holds others."""
    own = {id(entry.tensor) for entry in one.entries}
    for plan in filter(None, (one.whole, one)):
        places = {id(entry.tensor): place for place, entry in enumerate(plan.entries)}
        if own <= places.keys():
            return places
    raise AssertionError("a plan's tensors are its own")
