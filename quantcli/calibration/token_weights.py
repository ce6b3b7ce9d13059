"""How much each token's errors of a gate and an up projection matter.

An error e of a gate's row j gives act'(g_j) u_j (e x) at its neuron, one of an up projection's row act(g_j) (e x); what
they give in the residual stream, the next norm divides by the stream's size. So a token counts in the moments of these
matrices' inputs in proportion to the mean over the neurons of (act'(g) u)^2, or of act(g)^2, over the stream's mean
square. Weights of each row's own would need a Hessian for each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy

from quantcli.calibration.capture import Stage
from quantcli.runner.arrays import Floats
from quantcli.runner.network import Network

NEURONS = 256  # that the mean is taken over, evenly spaced
STEP = 2.0**-6  # of the difference that stands for the derivative

Weighing = Callable[[Floats, Floats], tuple[Floats, Floats]]  # inputs [tokens, n], stream [tokens, H] -> [tokens] each


def of_stage(network: Network, stage: Stage) -> Weighing | None:
    """The weights of tokens for the stage's two matrices, a gate and an up projection; None for other stages."""
    graph, settings = network.settings.graph, network.settings
    roles = [name.removesuffix(".weight").split(".")[-1] for name in stage.names]
    plain = not graph.limited and not settings.activation_parameters and graph.activation != "swiglu_oai"
    if stage.routed or roles != ["ffn_gate", "ffn_up"] or not plain:
        return None
    rows = stage.weights[0].rows
    pick = numpy.arange(0, rows, max(1, rows // NEURONS))
    (to_gate, gate_bias), (to_up, up_bias) = (
        (weight.take(pick), 0 if weight.bias is None else weight.bias[0, pick]) for weight in stage.weights
    )

    def activated(gate: Floats) -> Floats:
        return network.operations.activate(graph.activation, numpy.ascontiguousarray(gate, numpy.float32), None)

    def weigh(inputs: Floats, stream: Floats) -> tuple[Floats, Floats]:
        gate, up = inputs @ to_gate.T + gate_bias, inputs @ to_up.T + up_bias
        step = numpy.float32(STEP)
        slope = (activated(gate + step) - activated(gate - step)) / (2 * step)
        size = numpy.square(stream).mean(axis=1) + numpy.float32(settings.eps)
        of_gate, of_up = numpy.square(slope * up).mean(axis=1) / size, numpy.square(activated(gate)).mean(axis=1) / size
        return of_gate, of_up

    return weigh
