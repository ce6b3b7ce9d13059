"""Observers: who sees the inputs of a network's products while it runs.

A statistic of a model's inputs (importance, a Hessian, maxima) is an observer that adds up what it is shown:
`Network(model, observers=[one])`, or `with network.observed_by(one):` for a while. Without observers nothing is
gathered and nothing is computed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy

from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.weights import PackedMatrix


class Observer(Protocol):
    """Sees every product with a packed matrix, the router's and the head's included; table look-ups are no products.

    What the runner computes is not changed by it. An exception that it raises ends the pass and goes to the caller.
    """

    def see(self, inputs: Floats, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        """Called before ``weights[i]`` is multiplied with ``inputs``, once for all matrices that read them.

        ``inputs``: float32 [tokens, columns], C-contiguous, one row per token of all sequences that run together, not
        yet rounded as the product rounds them. They belong to the runner: what is kept has to be a copy, and nothing
        may be written to them.
        ``weights``: one or more matrices with these ``columns``: queries, keys and values read one input, gate and up
        another. ``weights[i].name`` is the tensor's name, ``weights[i].matrices`` how many experts it holds.
        ``expert``: None, or which matrix of each of ``weights`` is meant; ``inputs`` are then the rows of the tokens
        that were routed to it, in order of tokens, at least one. A token with several experts is seen by each of them.

        Order: layer by layer as the model computes, batch by batch, experts ascending. Always on the thread that runs
        the network; one network is run by one thread at a time, so an observer of one network needs no lock, one that
        watches several networks on several threads does.
        """
        ...


def show(observers: Sequence[Observer], inputs: Floats, weights: Sequence[PackedMatrix]) -> None:
    """Show a product of ``inputs`` [tokens, columns] to everybody."""
    for observer in observers:
        observer.see(inputs, weights, None)


def show_experts(observers: Sequence[Observer], inputs: Floats, chosen: Ints, weights: Sequence[PackedMatrix]) -> None:
    """Show products by experts, arguments as `Operations.multiply_experts` takes them."""
    for expert in numpy.unique(chosen).tolist():
        token, slot = numpy.nonzero(chosen == expert)
        gathered = inputs[token] if inputs.ndim == 2 else inputs[token, slot]
        for observer in observers:
            observer.see(gathered, weights, expert)
