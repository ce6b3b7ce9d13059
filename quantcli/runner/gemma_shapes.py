"""The tensors that Gemma 3n and Gemma 4 have beside those of other decoders, and their shapes in GGUF order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from quantcli.runner.state_shapes import Expected, Shape

if TYPE_CHECKING:
    from quantcli.runner.settings import NetworkSettings


def of_model(s: NetworkSettings, vocabulary: int) -> Iterator[Expected]:
    """Tensors outside the layers."""
    if s.layer_width:
        yield Expected("per_layer_token_embd.weight", (s.layers * s.layer_width, vocabulary))
        yield Expected("per_layer_model_proj.weight", (s.hidden, s.layers * s.layer_width))
        yield Expected("per_layer_proj_norm.weight", (s.layer_width,))
    if s.graph.streams:
        others = s.stream_width // s.hidden - 1
        yield Expected("altup_proj.weight", (s.hidden, s.hidden, others))
        yield Expected("altup_unembd_proj.weight", (s.hidden, s.hidden, others))


def of_layer(s: NetworkSettings, prefix: str, shapes: Mapping[str, Shape]) -> Iterator[Expected]:
    """Tensors of one layer."""
    if s.layer_width:
        yield Expected(f"{prefix}inp_gate.weight", (s.hidden, s.layer_width))
        yield Expected(f"{prefix}proj.weight", (s.layer_width, s.hidden))
        yield Expected(f"{prefix}post_norm.weight", (s.hidden,))
    if s.graph.streams:
        yield from _streams(s, prefix, shapes)
        return
    yield Expected(f"{prefix}layer_output_scale.weight", (1,), needed=False)
    if f"{prefix}ffn_gate_inp.weight" in shapes:
        yield Expected(f"{prefix}ffn_gate_inp.scale", (s.hidden,))
        yield Expected(f"{prefix}ffn_down_exps.scale", (s.experts,), needed=False)
        for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
            yield Expected(f"{prefix}{name}.weight", (s.hidden,))


def _streams(s: NetworkSettings, prefix: str, shapes: Mapping[str, Shape]) -> Iterator[Expected]:
    """Of a layer with several streams."""
    count, rank = s.stream_width // s.hidden, (*shapes.get(f"{prefix}laurel_l.weight", ()), 1, 1)[1]
    for name, shape in (
        ("altup_router", (s.hidden, count)),
        ("altup_router_norm", (s.hidden,)),
        ("altup_predict_coef", (count, count * count)),
        ("altup_correct_coef", (count, count)),
        ("altup_correct_scale", (s.hidden,)),
        ("laurel_l", (s.hidden, rank)),
        ("laurel_r", (rank, s.hidden)),
        ("laurel_post_norm", (s.hidden,)),
    ):
        yield Expected(f"{prefix}{name}.weight", shape)
