"""The types that lose least under a budget of bytes: one choice per item, every item with options of its own.

A multiple-choice knapsack. Sizes of tensors have a large common divisor, so that it is mostly solved exactly, by
dynamic programming over what is left of the budget. Beyond a bound: bisection on the price of a byte gives the choices
of the convex hull; the bytes that are left are spent greedily; then pairs of changes (one up, another down) are made
while they lower the loss, which also fills the budget. Deterministic: ties go to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy
from numpy.typing import NDArray

from quantcli.errors import TargetTooSmall

MOST_STATES = 1 << 28  # items times units of bytes that are solved exactly (256 MB)
STEPS = 200  # of the bisection
SWAPS = 100_000  # far more than there are

Choices = list[int]
Doubles = NDArray[numpy.float64]
Integers = NDArray[numpy.int64]


@dataclass(frozen=True, slots=True)
class Item:
    """What gets one choice: ``bytes`` and ``loss`` (additive, not negative) of every option."""

    bytes: tuple[int, ...]
    loss: tuple[float, ...]

    def efficient(self) -> list[int]:
        """Options that no other beats in both, from the smallest to the largest."""
        kept: list[int] = []
        for option in sorted(range(len(self.bytes)), key=lambda i: (self.bytes[i], self.loss[i], i)):
            if not kept or self.loss[option] < self.loss[kept[-1]]:
                kept.append(option)
        return kept


def solve(items: Sequence[Item], budget: int) -> Choices:
    """The option of every item, with at most ``budget`` bytes in all. Raises TargetTooSmall."""
    lists = [item.efficient() for item in items]
    least = sum(item.bytes[own[0]] for item, own in zip(items, lists, strict=True))
    if least > budget:
        raise TargetTooSmall(
            f"the smallest plan is {least - budget:,} bytes larger than that",
            hint="take a larger target, allow smaller types with --candidates, or pin fewer tensors",
        )
    unit = gcd(*(item.bytes[i] - item.bytes[own[0]] for item, own in zip(items, lists, strict=True) for i in own))
    units = (budget - least) // max(unit, 1)
    if unit == 0 or units * len(items) <= MOST_STATES:
        return _exactly(items, lists, unit, units)
    chosen = _cheapest(items, lists, budget)
    _improve(items, lists, chosen, budget)
    return chosen


def _exactly(items: Sequence[Item], lists: Sequence[list[int]], unit: int, units: int) -> Choices:
    """The best choices that take at most ``units`` of ``unit`` bytes more than the smallest."""
    if unit == 0:
        return [own[0] for own in lists]
    most = sum((item.bytes[own[-1]] - item.bytes[own[0]]) // unit for item, own in zip(items, lists, strict=True))
    units = min(units, most)
    least = numpy.zeros(units + 1)  # loss of the items so far, by the units that they may take
    taken = []
    for item, own in zip(items, lists, strict=True):
        after, choice = numpy.full(units + 1, numpy.inf), numpy.zeros(units + 1, numpy.int8)
        for place, option in enumerate(own):
            more = (item.bytes[option] - item.bytes[own[0]]) // unit
            if more <= units:
                candidate = least[: units + 1 - more] + item.loss[option]
                better = candidate < after[more:]
                after[more:][better], choice[more:][better] = candidate[better], place
        least = after
        taken.append(choice)
    chosen = []
    for item, own, choice in reversed(list(zip(items, lists, taken, strict=True))):
        option = own[int(choice[units])]
        units -= (item.bytes[option] - item.bytes[own[0]]) // unit
        chosen.append(option)
    return chosen[::-1]


def _cheapest(items: Sequence[Item], lists: Sequence[list[int]], budget: int) -> Choices:
    """The largest solution under the budget that some price per byte gives."""
    high = 1.0 + max((max(item.loss) for item in items), default=0.0)  # nobody pays this for a byte
    low, found = 0.0, _at_price(items, lists, high)
    if _bytes(items, free := _at_price(items, lists, 0.0)) <= budget:
        return free
    for _ in range(STEPS):
        price = (low * high) ** 0.5 if low else high / 1024
        candidate = _at_price(items, lists, price)
        if _bytes(items, candidate) <= budget:
            high, found = price, candidate
        else:
            low = price
        if low and high / low < 1 + 1e-12:
            break
    return found


def _at_price(items: Sequence[Item], lists: Sequence[list[int]], price: float) -> Choices:
    return [
        min(own, key=lambda i: (item.loss[i] + price * item.bytes[i], item.bytes[i]))
        for item, own in zip(items, lists, strict=True)
    ]


def _bytes(items: Sequence[Item], chosen: Choices) -> int:
    return sum(item.bytes[option] for item, option in zip(items, chosen, strict=True))


@dataclass(frozen=True)
class _Changes:
    """Every other option of every item: what it takes more (int64) and loses more (float64) than the chosen one."""

    item: Integers
    option: Integers
    bytes: Integers
    loss: Doubles

    @classmethod
    def of(cls, items: Sequence[Item], lists: Sequence[list[int]], chosen: Choices) -> _Changes:
        rows = [
            (number, option, item.bytes[option] - item.bytes[now], item.loss[option] - item.loss[now])
            for number, (item, own, now) in enumerate(zip(items, lists, chosen, strict=True))
            for option in own
            if option != now
        ]
        numbers = numpy.array([row[:3] for row in rows], numpy.int64).reshape(-1, 3)
        order = numpy.argsort(numbers[:, 2], kind="stable")
        loss = numpy.array([row[3] for row in rows], numpy.float64)[order]
        return cls(numbers[order, 0], numbers[order, 1], numbers[order, 2], loss)


def _improve(items: Sequence[Item], lists: Sequence[list[int]], chosen: Choices, budget: int) -> None:
    """Single changes and pairs of them, the best one each time, while the loss falls."""
    for _ in range(SWAPS):
        changes = _Changes.of(items, lists, chosen)
        found = _best(changes, budget - _bytes(items, chosen))
        if found is None:
            return
        for place in found:
            chosen[int(changes.item[place])] = int(changes.option[place])


def _best(changes: _Changes, slack: int) -> tuple[int, ...] | None:
    """Places of the one or two changes that lower the loss most and need at most ``slack`` bytes more."""
    best: tuple[int, ...] | None = None
    least = -1e-15
    fits = numpy.flatnonzero((changes.bytes <= slack) & (changes.loss < 0))
    if len(fits):
        gains = changes.loss[fits] / numpy.maximum(changes.bytes[fits], 1)
        first = int(fits[int(gains.argmin())])
        best, least = (first,), float(changes.loss[first])
        if changes.bytes[first] > 0:
            return best  # by gain per byte, as long as something fits
    first_best, second_best = _least_before(changes)
    for place in numpy.flatnonzero(changes.loss < 0).tolist():
        room = int(numpy.searchsorted(changes.bytes, slack - changes.bytes[place], side="right")) - 1
        if room < 0:
            continue
        other = int(first_best[room])
        if changes.item[other] == changes.item[place]:
            other = int(second_best[room])
        if other >= 0 and changes.loss[place] + changes.loss[other] < least:
            best, least = (place, other), float(changes.loss[place] + changes.loss[other])
    return best


def _least_before(changes: _Changes) -> tuple[Integers, Integers]:
    """Up to every place the change of least loss, and the least one of another item (-1: none)."""
    count = len(changes.loss)
    first, second = numpy.full(count, -1), numpy.full(count, -1)
    one = other = -1
    for place in range(count):
        if one < 0 or changes.loss[place] < changes.loss[one]:
            if one >= 0 and changes.item[one] != changes.item[place]:
                other = one
            one = place
        elif changes.item[place] != changes.item[one] and (other < 0 or changes.loss[place] < changes.loss[other]):
            other = place
        first[place], second[place] = one, other
    return first, second
