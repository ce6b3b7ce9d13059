"""A conversion in parts: whole shards, so that every part takes about the same time, and no part asks another.

Everybody who divides the same plans gets the same parts: costs are whole numbers from a table, ties go by the order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from quantcli.errors import UsageError
from quantcli.plan import costs
from quantcli.plan.plan import Plan

MOST = 65_535

Shard: TypeAlias = tuple[int, int]  # numbers of a plan and of one of its shards
Bundle: TypeAlias = tuple[Shard, ...]  # shards that stay together


@dataclass(frozen=True)
class Division:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Division:
    """ "3/16". Raises UsageError."""
    number, slash, count = text.partition("/")
    plain = all(part.isascii() and part.isdigit() and len(part) < 8 for part in (number, count))
    if not slash or not plain:
        raise UsageError(f"{text!r} is no part", where="--part", hint="part 3 of 16 is --part 3/16")
    made = Division(int(number), int(count))
    if not 1 <= made.number <= made.count:
        raise UsageError(
            f"there is no part {made.number} of {made.count}", where="--part", hint="parts are numbered from 1"
        )
    if made.count > MOST:
        raise UsageError(f"{made.count} parts are more than {MOST}", where="--part", hint="take fewer")
    return made


def shard_costs(plans: Sequence[Plan]) -> dict[tuple[int, int], int]:
    """(plan, shard) -> picoseconds of one core."""
    found = {(number, shard): 0 for number, one in enumerate(plans) for shard in range(len(one.shards))}
    for number, one in enumerate(plans):
        for entry in one.entries:
            found[number, entry.shard] += costs.cost(entry.tensor, entry.type)
    return found


def _bundles(plans: Sequence[Plan], count: int) -> dict[Bundle, int]:
    """What stays together -> picoseconds: the first shards of all plans, whose maker hashes the sources, and every
    other shard alone. Where that leaves too little for ``count`` parts, the first shards are alone, too."""
    known = shard_costs(plans)
    hashed = costs.hashing({id(one.model): one.model for one in plans}.values())
    first = tuple(one for one in known if one[1] == 0)
    if most_parts(plans) < count:
        return {(one,): cost + (0 if one[1] else hashed) for one, cost in known.items()}
    rest = {(one,): cost for one, cost in known.items() if one[1]}
    return {first: sum(known[one] for one in first) + hashed} | rest


def most_parts(plans: Sequence[Plan]) -> int:
    """How many parts there can be while nothing is hashed by two of them: first shards stay together."""
    return sum(len(one.shards) for one in plans) - len(plans) + 1


def divide(plans: Sequence[Plan], count: int) -> list[list[tuple[int, int]]]:
    """The (plan, shard) of each of ``count`` parts: the most expensive shard first, each to the part that has least;
    or, where no part gets more to do by that than the largest has so, to one that reads the same tensors for another
    plan.

    Raises UsageError where parts would be empty.
    """
    shards = sum(len(one.shards) for one in plans)
    if shards < count:
        raise UsageError(
            f"the plan has {shards} shard{'s' * (shards != 1)}: too few for {count} parts",
            where="--part",
            hint="choose a smaller --split-max-size, or fewer parts",
        )
    known = _bundles(plans, count)
    apart, most = _spread(known, count)
    together, found = _spread(known, count, _Ranges(plans), most)
    return together if found <= most else apart


def _spread(
    known: Mapping[Bundle, int], count: int, ranges: _Ranges | None = None, most: int = 0
) -> tuple[list[list[Shard]], int]:
    """What every part has, and the largest part's cost. ``ranges``: who reads the same tensors goes first, up to a cost
    of ``most``, once every part has something."""
    parts: list[list[Shard]] = [[] for _ in range(count)]
    load = [0] * count
    owner: dict[Shard, int] = {}
    for bundle in sorted(known, key=lambda bundle: (-known[bundle], bundle)):
        chosen = min(range(count), key=lambda part: (load[part], len(parts[part]), part))
        if ranges is not None and parts[chosen]:
            shared = ranges.shared(bundle, owner)
            fitting = [part for part in sorted(shared) if load[part] + known[bundle] <= most]
            chosen = max(fitting, key=lambda part: shared[part], default=chosen)
        parts[chosen].extend(bundle)
        load[chosen] += known[bundle]
        owner |= dict.fromkeys(bundle, chosen)
    return [sorted(part) for part in parts], max(load)


class _Ranges:
    """Where the shards of every plan lie in its model, in weights."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._models = [id(one.model) for one in plans]
        self._ends: list[list[int]] = []
        for one in plans:
            sizes = [0] * len(one.shards)
            for entry in one.entries:
                sizes[entry.shard] += entry.tensor.columns * entry.tensor.rows
            self._ends.append(list(accumulate(sizes)))

    def shared(self, bundle: Bundle, owner: Mapping[Shard, int]) -> Counter[int]:
        """How many weights of the bundle the parts read already for other plans of the model, by part."""
        found: Counter[int] = Counter()
        for plan, shard in bundle:
            ends = self._ends[plan]
            start, end = ends[shard - 1] if shard else 0, ends[shard]
            for other, others in enumerate(self._ends):
                if other == plan or self._models[other] != self._models[plan]:
                    continue
                begun = start
                for number in range(bisect_right(others, start), len(others)):
                    if begun >= end:
                        break
                    if (other, number) in owner:
                        found[owner[other, number]] += min(others[number], end) - begun
                    begun = others[number]
        return found


def taken(plans: Sequence[Plan], division: Division) -> list[Plan | None]:
    """What of every plan belongs to the part; None for a plan of which nothing does. Raises UsageError."""
    own = divide(plans, division.count)[division.number - 1]
    numbers = [[shard for plan, shard in own if plan == number] for number in range(len(plans))]
    return [one.only(shards) if shards else None for one, shards in zip(plans, numbers, strict=True)]
