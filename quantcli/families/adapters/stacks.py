"""The factors of all experts of a layer, one below the other."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.errors import UnsupportedFile
from quantcli.families import bind
from quantcli.families.facts import Facts
from quantcli.families.transforms import MERGE_HINT, Node
from quantcli.views import Stacked, Zeros


def stacked(bound: bind.Bound, pairs: Mapping[int, tuple[Node, Node]], facts: Facts) -> tuple[Node, Node]:
    """(left, right) of all experts: [experts, rows, rank] and [experts, rank, columns].

    An expert without an adapter has zeros. Raises UnsupportedFile where ranks differ: the file has one for all.
    """
    first = pairs[min(pairs)]
    for number, pair in pairs.items():
        if pair[1].shape[0] != first[1].shape[0]:
            raise UnsupportedFile(
                f"expert {number} has the rank {pair[1].shape[0]}, others {first[1].shape[0]}: a GGUF adapter has one",
                where=bound.parts[number].where,
                hint=MERGE_HINT,
            )
    zeros = tuple(Node(node.shape, Zeros(node.shape[0], node.shape[1], node.reader.stored)) for node in first)
    every = [pairs.get(number, zeros) for number in range(bound.spec.count(facts))]
    left, right = (
        Node((len(every), *first[side].shape), Stacked([pair[side].reader for pair in every])) for side in (0, 1)
    )
    return left, right
