"""A conversion in parts: whole shards, so that every part takes about the same time, and no part asks another.

Everybody who divides the same plans gets the same parts: costs are whole numbers from a table, ties go by the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantcli.errors import UsageError
from quantcli.plan import costs
from quantcli.plan.plan import Plan

MOST = 65_535


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


def _bundles(plans: Sequence[Plan], count: int) -> dict[tuple[tuple[int, int], ...], int]:
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
    """The (plan, shard) of each of ``count`` parts: the most expensive shard first, each to the part that has least.

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
    parts: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    load = [0] * count
    for bundle in sorted(known, key=lambda bundle: (-known[bundle], bundle)):
        least = min(range(count), key=lambda part: (load[part], len(parts[part]), part))
        parts[least].extend(bundle)
        load[least] += known[bundle]
    return [sorted(part) for part in parts]


def taken(plans: Sequence[Plan], division: Division) -> list[Plan | None]:
    """What of every plan belongs to the part; None for a plan of which nothing does. Raises UsageError."""
    own = divide(plans, division.count)[division.number - 1]
    numbers = [[shard for plan, shard in own if plan == number] for number in range(len(plans))]
    return [one.only(shards) if shards else None for one, shards in zip(plans, numbers, strict=True)]
