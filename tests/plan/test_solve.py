"""The solver against all choices there are, and at sizes where there are too many."""

from __future__ import annotations

import itertools

import numpy
import pytest

from quantcli.errors import TargetTooSmall
from quantcli.plan.solve import Item, solve

BYTES = (74, 84, 98, 110, 136, 144, 176, 210, 272)  # of a block of 256
BITS = tuple(size / 32 for size in BYTES)


def items(seed: int, count: int, options: int = len(BITS)) -> list[Item]:
    """Tensors of a few sizes whose loss falls by about four times per bit."""
    random = numpy.random.default_rng(seed)
    found = []
    for _ in range(count):
        weights, mind = int(random.choice([131_072, 262_144, 786_432])), random.lognormal(0, 1.5)
        losses = [mind * 4.0**-bits * random.uniform(0.8, 1.2) for bits in BITS[:options]]
        found.append(Item(tuple(weights // 256 * size for size in BYTES[:options]), tuple(losses)))
    return found


def total(chosen: list[int], given: list[Item]) -> tuple[int, float]:
    pairs = list(zip(given, chosen, strict=True))
    return sum(item.bytes[i] for item, i in pairs), sum(item.loss[i] for item, i in pairs)


@pytest.fixture(params=["exact", "bisection"])
def way(request, monkeypatch) -> str:
    """Both ways to solve it."""
    if request.param == "bisection":
        monkeypatch.setattr("quantcli.plan.solve.MOST_STATES", -1)
    return request.param


@pytest.mark.parametrize("seed", range(12))
def test_few_items_are_solved_as_by_trying_everything(seed: int, way: str) -> None:
    given = items(seed, 5, 5)
    sizes = [sum(item.bytes[i] for item in given) for i in (0, 4)]
    budget = int(sizes[0] + (sizes[1] - sizes[0]) * (0.1 + 0.07 * seed))
    best = min(
        loss
        for chosen in itertools.product(range(5), repeat=5)
        for size, loss in [total(list(chosen), given)]
        if size <= budget
    )
    size, loss = total(solve(given, budget), given)
    assert size <= budget
    assert loss <= (1 if way == "exact" else 1.5) * best * (1 + 1e-12)


@pytest.mark.parametrize("count", [30, 211, 600])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_many_items_fill_the_budget_and_never_exceed_it(count: int, share: float, way: str) -> None:
    given = items(count, count)
    sizes = [sum(item.bytes[i] for item in given) for i in (0, -1)]
    budget = int(sizes[0] + (sizes[1] - sizes[0]) * share)
    size, _ = total(solve(given, budget), given)
    assert budget * (0.999 if count > 30 else 0.997) <= size <= budget


def test_more_bytes_are_never_worse(way: str) -> None:
    given = items(3, 40)
    least = sum(item.bytes[0] for item in given)
    losses = [total(solve(given, int(least * factor)), given)[1] for factor in numpy.linspace(1, 3.6, 60)]
    assert all(after <= before * (1 if way == "exact" else 1.01) for before, after in itertools.pairwise(losses))


def test_what_is_beaten_in_both_is_never_chosen() -> None:
    item = Item((10, 20, 15), (3.0, 1.0, 4.0))
    assert item.efficient() == [0, 1]
    assert solve([item], 19) == [0] and solve([item], 20) == [1]


def test_an_impossible_budget_says_by_how_much() -> None:
    given = items(1, 10)
    least = sum(item.bytes[0] for item in given)
    assert solve(given, least) == [0] * 10
    with pytest.raises(TargetTooSmall, match="1,000 bytes larger"):
        solve(given, least - 1000)
    assert solve([], 0) == []
