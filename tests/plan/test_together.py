"""What one read of the source serves: plans of one model, whole and in parts, and those that hold their own tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers import synthetic
from helpers.synthetic import options
from quantcli.plan import division, plan, together

LLAMA = {"general.architecture": "llama", "llama.block_count": 24, "llama.attention.head_count": 8}
ROWS, COLUMNS = 64, 256


def plans(*types: str, size: int | None = 40_000) -> list[plan.Plan]:
    """Of 24 matrices."""
    model = synthetic.model([(f"blk.{n}.ffn_up.weight", (COLUMNS, ROWS), "BF16") for n in range(24)], LLAMA)
    return [plan.make(model, options(name, split_max_size=size)) for name in types]


def test_parts_of_two_types_are_read_once_where_they_overlap() -> None:
    one, other = plans("Q4_0", "Q8_0")
    first, second = one.only((0, 2)), other.only((0, 7))
    found = together.order([first, second])
    assert found is not None and together.groups([first, second]) == [[0, 1]]
    names = [tensor.name for tensor in found.tensors]
    assert names == sorted(names, key=lambda name: int(name.split(".")[1])) and len(set(names)) == len(names)
    for made, entries in zip((first, second), found.entries, strict=True):
        assert [entry for entry in entries if entry is not None] == list(made.entries)
        assert len(entries) == len(names) and None in entries
    assert any(None not in pair for pair in zip(*found.entries, strict=True))


def test_tensors_of_ones_own_are_read_apart() -> None:
    one, other = plans("Q4_0", "Q8_0")
    held = other.holding({"blk.3.ffn_up.weight": replace(other.entries[3].tensor)})
    assert together.groups([one, other]) == [[0, 1]]
    assert together.order([one, held]) is None and together.groups([one, held, other]) == [[0, 2], [1]]
    part = held.only((0, 1))
    assert together.groups([part, part]) == [[0, 1]]
    own = other.only((0, 1)).holding({"blk.3.ffn_up.weight": replace(other.entries[3].tensor)})
    assert together.groups([own]) == [[0]] and together.groups([one, own]) == [[0], [1]]


def test_another_order_is_read_apart() -> None:
    one, other = plans("Q4_0", "Q8_0")
    turned = replace(other, entries=other.entries[::-1])
    assert together.groups([one, turned]) == [[0], [1]]


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_parts_read_little_twice_and_none_has_more_to_do_for_it(count: int) -> None:
    given = plans("Q4_0", "Q8_0")
    known = division._bundles(given, count)
    apart, most = division._spread(known, count)
    divided = division.divide(given, count)
    costs = {shard: cost for bundle, cost in known.items() for shard in bundle[:1]}
    assert max(sum(costs.get(shard, 0) for shard in part) for part in divided) <= most
    assert sorted(shard for part in divided for shard in part) == sorted(shard for part in apart for shard in part)
    assert all(divided) and read(given, divided) <= read(given, apart)
    assert read(given, divided) < 2 * 24


def read(given: list[plan.Plan], divided: list[list[tuple[int, int]]]) -> int:
    """Tensors that the parts read in all."""
    count = 0
    for part in divided:
        own = [[shard for plan, shard in part if plan == number] for number in range(len(given))]
        taken = [one.only(shards) for one, shards in zip(given, own, strict=True) if shards]
        for numbers in together.groups(taken):
            found = together.order([taken[number] for number in numbers])
            assert found is not None
            count += len(found.tensors)
    return count


def test_as_many_parts_as_there_can_be() -> None:
    given = plans("Q4_0", "Q8_0")
    most = division.most_parts(given)
    assert all(division.divide(given, most)) and all(division.divide(given, most + 1))
