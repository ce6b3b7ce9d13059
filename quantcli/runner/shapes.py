"""The tensors of a graph and their shapes, which follow from its settings; checked before anything is read.

Shapes are in GGUF order, columns first, trailing ones left out. A width that the settings do not have (of an MLP) is
that of the matrix which leads back to the residual stream, and all the others must agree with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from quantcli.architectures.topology import BIAS_NAMES, HARMLESS, attention_inputs, mlp_inputs, norm_tensor
from quantcli.container import Strings, Value, without_trailing_ones
from quantcli.errors import BadConfig, BadTokenizer, MissingTensors, ShapeMismatch
from quantcli.runner import gemma_shapes, latent_shapes, state_shapes
from quantcli.runner.settings import NetworkSettings, refuse_unread, runs
from quantcli.runner.state_shapes import Expected, Shape

Shapes: TypeAlias = Mapping[str, Shape]  # by tensor name

TOKENS = "tokenizer.ggml.tokens"
TORN = "the file contradicts itself: get it again"


def check(settings: NetworkSettings, metadata: Mapping[str, Value], shapes: Shapes, where: str) -> None:
    """Whether the tensors are those of the graph and have their shapes; ``where`` names the model in errors.

    Raises MissingTensors, ShapeMismatch (naming the tensor), BadConfig, BadTokenizer (naming the key), and
    UnsupportedGraph for tensors that the graph would pass over.
    """
    _check_layers(settings, shapes, where)
    unread = set(shapes) - {name for name in shapes if name.endswith(HARMLESS)}
    for name, shape, needed in expected(settings, shapes):
        found = shapes.get(name)
        unread.discard(name)
        if found is None:
            if needed:
                raise missing(name, where)
        elif without_trailing_ones(found) != without_trailing_ones(shape):
            wanted = " x ".join(map(str, shape))
            raise ShapeMismatch(
                f"{' x '.join(map(str, found))}, the metadata wants {wanted}", where=f"{where}: {name}", hint=TORN
            )
    unread = {name for name in unread if runs(name, settings.layers, settings.blocks)}
    refuse_unread(settings.architecture, sorted(unread), where)
    _check_vocabulary(metadata, shapes)


def missing(name: str, where: str) -> MissingTensors:
    """The error of a tensor that is not there."""
    return MissingTensors(
        f"the model has no {name}", where=where, hint="the file is incomplete, or its architecture is not what it says"
    )


def _check_layers(settings: NetworkSettings, shapes: Shapes, where: str) -> None:
    """As many layers as tensors speak of: nothing is made for layers that a file only claims."""
    side = "blk." if settings.sides is None else "enc.blk."
    there = {name.removeprefix(side).partition(".")[0] for name in shapes if name.startswith(side)}
    if settings.layers > len(there):
        raise BadConfig(
            f"block_count is {settings.layers}, the tensors are those of {len(there)} layers",
            where=f"{settings.architecture}.block_count",
            hint=TORN,
        )


def _check_vocabulary(metadata: Mapping[str, Value], shapes: Shapes) -> None:
    """Every row of the embeddings is a token, and every token has a row."""
    tokens, rows = metadata.get(TOKENS), rows_of(shapes, "token_embd.weight")
    if tokens is not None and isinstance(tokens.data, Strings) and len(tokens.data) != rows:
        raise BadTokenizer(f"{len(tokens.data)} tokens, token_embd.weight has {rows} rows", where=TOKENS, hint=TORN)


def rows_of(shapes: Shapes, name: str) -> int:
    """Rows of (each) matrix; 0 where there is no such tensor."""
    shape = shapes.get(name)
    return 0 if shape is None else (*shape, 1)[1]


# ---- what a graph reads


def expected(settings: NetworkSettings, shapes: Shapes) -> Iterator[Expected]:
    """All tensors that the forward pass may read, of a model with these tensors."""
    s, vocabulary = settings, rows_of(shapes, "token_embd.weight")
    yield Expected("token_embd.weight", (s.hidden, vocabulary))
    if s.graph.final_norm:
        yield from _norm(s, s.graph.final_norm, (s.hidden,))
    if s.graph.token_types:
        yield Expected("token_types.weight", (s.hidden, rows_of(shapes, "token_types.weight")), needed=False)
    yield from _matrix("output", s.hidden, vocabulary, needed=False)
    if s.graph.classifier:
        width = rows_of(shapes, "cls.weight")
        yield from _matrix("cls", s.hidden, width, needed=False)
        yield Expected("cls.norm.weight", (width,), needed=False)
        yield from _matrix("cls.output", width or s.hidden, rows_of(shapes, "cls.output.weight"), needed=False)
    if s.graph.learned_positions:
        yield Expected("position_embd.weight", (s.hidden, s.context), needed=s.graph.alibi is None)
    if s.graph.embedding_norm:
        yield from _norm(s, "token_embd_norm", (s.hidden,))
    if s.graph.rope != "none":
        for name in ("rope_freqs", "rope_factors_long", "rope_factors_short"):
            yield Expected(f"{name}.weight", (s.divisors,), needed=False)
    if s.graph.layer_inputs:
        yield from gemma_shapes.of_model(s, vocabulary)
    if s.sides is not None:
        yield from _sides(s, s.sides.decoder_layers, shapes)
        return
    for layer in range(s.layers):
        prefix = f"blk.{layer}."
        routed = s.experts > 0 and f"{prefix}ffn_gate_inp.weight" in shapes
        mixes = s.attention[layer].queries > 0 or s.recurs[layer]
        feeds = _feeds(s, prefix, shapes, mixes)
        yield from _attention(s, prefix, layer, shapes)
        if s.state is not None and s.recurs[layer]:
            channels = (shapes.get(f"{prefix}channel_mix_value.weight") or (1,))[0]
            found = state_shapes.of(s, layer, channels)
            yield from (Expected(prefix + one.name, one.shape, one.needed) for one in found)
        yield from _layer_norms(s, prefix, mixes, feeds)
        if feeds and not state_shapes.mixes_channels(s):
            yield from (_experts if routed else _mlp)(s, prefix, shapes)
        if s.graph.layer_inputs:
            yield from gemma_shapes.of_layer(s, prefix, shapes)
            yield from _mlp(s, prefix, shapes) if routed else ()


def _sides(s: NetworkSettings, decoder_layers: int, shapes: Shapes) -> Iterator[Expected]:
    """The two sides of an encoder-decoder; the biases of distances may be those of a side's first layer."""
    buckets = 0 if s.sides is None else s.sides.buckets
    yield from _norm(s, "enc.output_norm", (s.hidden,))
    blocks = [("enc", layer) for layer in range(s.layers)] + [("dec", layer) for layer in range(decoder_layers)]
    for side, layer in blocks:
        prefix = f"{side}.blk.{layer}."
        for kind in ("attn", "cross_attn") if side == "dec" else ("attn",):
            yield from _norm(s, f"{prefix}{kind}_norm", (s.hidden,))
            for part, width in (("q", s.key), ("k", s.key), ("v", s.value)):
                yield from _matrix(f"{prefix}{kind}_{part}", s.hidden, s.heads * width)
            yield from _matrix(f"{prefix}{kind}_o", s.heads * s.value, s.hidden)
            needed = layer == 0 and kind == "attn"
            yield Expected(f"{prefix}{kind}_rel_b.weight", (s.heads, buckets), needed)
        yield from _norm(s, f"{prefix}ffn_norm", (s.hidden,))
        yield from _mlp(s, prefix, shapes)


def _feeds(s: NetworkSettings, prefix: str, shapes: Shapes, mixes: bool) -> bool:
    """Whether a layer has an MLP or experts: in a graph with gaps, where it has their tensors or nothing else."""
    there = any(f"{prefix}ffn_down{suffix}.weight" in shapes for suffix in ("", "_exps"))
    return there or not s.graph.gaps or (s.state is not None and not mixes)


def _attention(s: NetworkSettings, prefix: str, layer: int, shapes: Shapes) -> Iterator[Expected]:
    heads = s.attention[layer]
    if heads.queries == 0:
        return
    if s.latent is not None:
        yield from (Expected(prefix + one.name, one.shape, one.needed) for one in latent_shapes.of(s, layer))
        return
    if heads.keys == 0:  # one matrix in the place of attention
        yield from _matrix(f"{prefix}attn_output", s.hidden, s.hidden)
        return
    widths = heads.widths
    rows = (2 * widths[0], *widths[1:]) if s.graph.gated_attention else widths
    roles = attention_inputs(s.graph, lambda role: f"{prefix}{role}.weight" in shapes)
    own = s.sources[layer] == layer  # keys and values
    for role, count in zip(roles, rows if len(roles) > 1 else (sum(rows),), strict=True):
        needed = role not in ("attn_k", "attn_v") or (own and (role == "attn_k" or not s.graph.value_norm))
        yield from _matrix(prefix + role, s.hidden, count, needed=needed)
    yield from _matrix(f"{prefix}attn_output", heads.queries * heads.value, s.hidden)
    if s.graph.inner_norm:
        yield from _norm(s, f"{prefix}attn_sub_norm", (heads.queries * heads.value,))
    if s.graph.attention_gate:
        single = rows_of(shapes, f"{prefix}attn_gate.weight") == heads.queries  # for a whole head
        yield Expected(f"{prefix}attn_gate.weight", (s.hidden, heads.queries * (1 if single else heads.value)))
    if s.graph.sinks:
        yield Expected(f"{prefix}attn_sinks.weight", (heads.queries,), needed=not s.graph.sinks_optional)
    if s.graph.qk_norm is not None:
        for role, number, width in (("attn_q_norm", heads.queries, widths[0]), ("attn_k_norm", heads.keys, widths[1])):
            shape = {"head": (heads.key,), "full": (width,), "each": (heads.key, number)}[s.graph.qk_norm]
            yield from _norm(s, prefix + role, shape, needed=False)


_SUM_NORMS = (("attn_output_norm", True), ("attn_norm_2", False), ("layer_output_norm", True))


def _layer_norms(s: NetworkSettings, prefix: str, attends: bool, feeds: bool) -> Iterator[Expected]:
    """Of a layer that has attention or an MLP."""
    # side by side, the MLP may read what attention reads
    second = "ffn_norm" if s.parallel else s.graph.second_norm
    for there, before, after in ((attends, "attn_norm", s.graph.attention_post_norm), (feeds, second, "post_ffw_norm")):
        if there and s.graph.pre_norm:
            missing = (s.parallel and before == "ffn_norm") or (
                prefix == "blk.0." and before == "attn_norm" and not s.graph.first_norm
            )
            yield from _norm(s, prefix + before, (s.hidden,), needed=not missing)
        if there and s.graph.post_norm:
            yield from _norm(s, prefix + after, (s.hidden,))
    for role, needed in _SUM_NORMS if s.graph.sum_norm else ():
        yield from _norm(s, prefix + role, (s.hidden,), needed=needed)


def _mlp(s: NetworkSettings, prefix: str, shapes: Shapes, suffix: str = "") -> Iterator[Expected]:
    """``suffix`` of the tensors' roles: of a shared expert."""
    down = f"{prefix}ffn_down{suffix}"
    width = (shapes.get(f"{down}.weight") or (1,))[0]
    for role in mlp_inputs(s.graph, suffix):
        yield from _matrix(prefix + role, s.hidden, width * (2 if s.graph.mlp == "fused" else 1))
    yield from _matrix(down, width, s.hidden)
    if s.graph.inner_norm:
        yield from _norm(s, f"{prefix}ffn_sub_norm{suffix}", (width,))


def _experts(s: NetworkSettings, prefix: str, shapes: Shapes) -> Iterator[Expected]:
    down, routing = f"{prefix}ffn_down_exps", s.routing
    assert routing is not None
    width = (shapes.get(f"{down}.weight") or (1,))[0]
    yield from _matrix(f"{prefix}ffn_gate_inp", s.hidden, s.experts)
    if f"{prefix}ffn_gate_up_exps.weight" in shapes:
        yield from _matrix(f"{prefix}ffn_gate_up_exps", s.hidden, 2 * width, s.experts)
    else:
        for role in mlp_inputs(s.graph, "_exps"):
            yield from _matrix(prefix + role, s.hidden, width, s.experts)
    yield from _matrix(down, width, s.hidden, s.experts)
    if routing.biased:
        yield from (Expected(f"{prefix}{name}", (s.experts,), needed=False) for name in BIAS_NAMES)
    if s.graph.beside_experts and f"{prefix}ffn_up.weight" in shapes:
        yield from _mlp(s, prefix, shapes)
    if f"{prefix}ffn_up_shexp.weight" in shapes:
        yield from _mlp(s, prefix, shapes, "_shexp")
        if s.graph.shared_expert_gate:
            yield Expected(f"{prefix}ffn_gate_inp_shexp.weight", (s.hidden,))


def _matrix(name: str, columns: int, rows: int, matrices: int = 1, *, needed: bool = True) -> Iterator[Expected]:
    """A matrix, or ``matrices`` of them, and the bias of its rows."""
    yield Expected(f"{name}.weight", (columns, rows, matrices) if matrices > 1 else (columns, rows), needed)
    yield Expected(f"{name}.bias", (rows, matrices) if matrices > 1 else (rows,), needed=False)


def _norm(s: NetworkSettings, name: str, shape: Shape, *, needed: bool = True) -> Iterator[Expected]:
    if not s.graph.norm_weights:
        return
    yield Expected(norm_tensor(s.graph, name), shape, needed)
    if s.graph.norm == "layer" or s.graph.norm_bias:
        yield Expected(f"{name}.bias", shape, needed=False)
