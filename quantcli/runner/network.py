"""The forward pass: token ids in, logits out; one path for all families, steered by their graph flags.

Shapes in comments: S sequences of equal length, T new positions each, H hidden, V vocabulary; heads h of width d.
"""

from __future__ import annotations

import numpy

from quantcli.errors import ContextTooLong, VocabularyMismatch
from quantcli.model import Model
from quantcli.runner import positions, settings
from quantcli.runner.cache import Cache
from quantcli.runner.operations import Operations, scale_and_cap, sigmoid, softmax, split, top_indices
from quantcli.runner.weights import Matrix, Weights

Array = numpy.ndarray


class Network:
    """One model ready to run. ``length``: the most positions it will be asked for (default: its own context)."""

    def __init__(
        self, model: Model, operations: Operations | None = None, *, length: int | None = None, kv_type: str = "F16"
    ) -> None:
        """Raises UnsupportedGraph, UnknownArchitecture, BadConfig, ContextTooLong."""
        self.model = model
        self.operations = operations or Operations()
        self.settings = settings.read(model)
        self.length = 0
        self.require(length or self.settings.context)
        self.kv_type = kv_type
        self.weights = Weights(model)
        self.embeddings = self.weights.matrix("token_embd", self.settings.hidden)
        self._layers: dict[int, Layer] = {}

    def require(self, length: int) -> None:
        """Prepare for contexts of ``length`` positions. Raises ContextTooLong."""
        if length > self.settings.context:
            raise ContextTooLong(
                f"{length} positions, the model knows {self.settings.context}",
                where=self.model.name,
                hint=f"at most -c {self.settings.context}",
            )
        self.length = length
        self._angles: dict[bool, positions.ANGLE_TABLE] = {}

    @property
    def vocabulary(self) -> int:
        """Rows of the output: ids are below."""
        return self.embeddings.rows

    def load(self) -> None:
        """Read all layers and the head now, so that the first run is not slower than the others."""
        for layer in range(self.settings.layers):
            self.tensors(layer)
        self.head_matrix()

    def tensors(self, layer: int) -> Layer:
        """The layer's tensors, read when first asked for."""
        if layer not in self._layers:
            self._layers[layer] = Layer(self, layer)
        return self._layers[layer]

    def release(self, layer: int) -> None:
        """Forget the layer's tensors."""
        self._layers.pop(layer, None)
        self.weights.release(f"blk.{layer}.")

    def new_cache(self, sequences: int, capacity: int) -> Cache:
        """An empty cache for ``sequences`` of at most ``capacity`` positions."""
        s = self.settings
        return Cache(self.kv_type, s.layers, sequences, capacity, s.kv_heads, (s.key, s.value))

    # ---- the pass

    def forward(self, tokens: Array, cache: Cache, first_output: int = 0) -> Array:
        """Logits float32 [S, T - first_output, V] of the positions from ``first_output`` on.

        ``tokens``: int [S, T], the continuation of what ``cache`` holds.
        """
        start = cache.length[0]
        if start + tokens.shape[1] > self.length:
            raise ContextTooLong(
                f"{start + tokens.shape[1]} positions, prepared for {self.length}", where=self.model.name
            )
        return self.capped(self.logits(self.embed(tokens, start), cache, first_output))

    def logits(self, x: Array, cache: Cache, first_output: int = 0) -> Array:
        """From embeddings [S, T, H] to what `capped` makes logits of: [S, T - first_output, V]."""
        for layer in range(self.settings.layers):
            x = self.layer(layer, x, cache)  # [S, T, H]
        return self._outputs(x[:, first_output:])

    def embed(self, tokens: Array, start: int = 0) -> Array:
        """The residual stream before layer 0: [S, T, H]."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise VocabularyMismatch(f"token {tokens.max()}, the model has {self.vocabulary}", where=self.model.name)
        if tokens.size == 1:
            x = self.embeddings.take(tokens.reshape(1)).reshape(1, 1, -1)
        else:
            known, places = numpy.unique(tokens, return_inverse=True)
            x = self.embeddings.take(known)[places.reshape(tokens.shape)]
        if self.settings.graph.learned_positions:
            x += self.weights.vector("position_embd.weight")[start : start + tokens.shape[1]]
        return x if self.settings.embedding_scale == 1 else x * numpy.float32(self.settings.embedding_scale)

    def stream(self, tokens: Array) -> Array:
        """The residual stream before the head, [S, T, H], of fresh sequences ``tokens`` [S, T]; nothing is cached."""
        cache = self.new_cache(*tokens.shape)
        x = self.embed(tokens)
        for layer in range(self.settings.layers):
            x = self.layer(layer, x, cache)
            cache.drop(layer)
        return x

    def layer(self, index: int, x: Array, cache: Cache) -> Array:
        """One transformer layer on the residual stream [S, T, H]."""
        s, layer, add, scale = self.settings, self.tensors(index), self.operations.add, self.settings.residual_scale
        normed = layer.norm("attn_norm", x)
        attended = layer.post_norm("post_attention_norm", attention(self, layer, normed, cache))
        if s.parallel:  # both read the layer's input
            other = layer.norm("ffn_norm", x) if layer.has("ffn_norm.weight") else normed
            return add(add(x, attended), layer.post_norm("post_ffw_norm", feed_forward(self, layer, other)))
        x = add(x, attended, scale)
        normed = layer.norm(s.graph.second_norm, x)
        return add(x, layer.post_norm("post_ffw_norm", feed_forward(self, layer, normed)), scale)

    def head(self, x: Array) -> Array:
        """Final norm, output matrix, scale and cap: [S, T, H] -> [S, T, V]."""
        return self.capped(self._outputs(x))

    def capped(self, logits: Array) -> Array:
        """The family's scale and cap on what the output matrix gives, in place."""
        return scale_and_cap(logits, self.settings.logit_scale, self.settings.final_cap)

    def log_probs(self, x: Array) -> Array:
        """The same as log-probabilities."""
        return self.operations.log_softmax(self._outputs(x), self.settings.logit_scale, self.settings.final_cap)

    def _outputs(self, x: Array) -> Array:
        (logits,) = self.operations.multiply(flat(norm(self, "output_norm", x)), self.head_matrix())
        return logits.reshape(*x.shape[:-1], -1)

    def head_matrix(self) -> Matrix:
        """The output matrix; the token embeddings where the model has none of its own."""
        separate = "output.weight" in self.weights
        return self.weights.matrix("output", self.settings.hidden, self.vocabulary) if separate else self.embeddings

    # ---- positions

    def angles(self, windowed: bool, start: int, stop: int) -> positions.ANGLE_TABLE:
        """Cosines and sines of positions ``start`` to ``stop`` in layers with or without window."""
        if windowed not in self._angles:
            rope = self.settings.window_rope if windowed else self.settings.rope
            self._angles[windowed] = positions.table(rope, self.settings.rope_dims, 0, self.length, self._divisors())
        cosine, sine = self._angles[windowed]
        return cosine[start:stop], sine[start:stop]

    def _divisors(self) -> Array | None:
        """The model's own divisors of the frequencies: one table, or one for short and one for long contexts."""
        size = "long" if self.length > self.settings.rope.original else "short"
        for name in ("rope_freqs.weight", f"rope_factors_{size}.weight"):
            if name in self.weights:
                return self.weights.vector(name, (self.settings.rope_dims // 2,))
        return None


class Layer:
    """The tensors of one layer, by role. Shapes follow from the settings."""

    def __init__(self, network: Network, index: int) -> None:
        self.network, self.index, self.prefix = network, index, f"blk.{index}."
        s, graph = network.settings, network.settings.graph
        q, kv = s.heads * s.key, s.kv_heads * (s.key + s.value)
        if graph.fused_qkv:
            self.qkv = (self.matrix("attn_qkv", s.hidden, q + kv),)
        else:
            self.qkv = (
                self.matrix("attn_q", s.hidden, q),
                self.matrix("attn_k", s.hidden, s.kv_heads * s.key),
                self.matrix("attn_v", s.hidden, s.kv_heads * s.value),
            )
        self.out = self.matrix("attn_output", s.heads * s.value, s.hidden)
        self.routed = s.experts > 0 and self.has("ffn_gate_inp.weight")
        if self.routed:
            self.router = self.matrix("ffn_gate_inp", s.hidden, s.experts)
            self.experts = tuple(self.matrix(f"ffn_{role}_exps", s.hidden, None, s.experts) for role in ("gate", "up"))
            self.down_experts = self.matrix("ffn_down_exps", self.experts[0].rows, s.hidden, s.experts)
        suffix = "_shexp" if self.routed else ""
        self.dense = self.has(f"ffn_up{suffix}.weight")
        if self.dense:
            roles = ("gate", "up") if graph.mlp == "gated" else ("up",)
            self.inputs = tuple(self.matrix(f"ffn_{role}{suffix}", s.hidden) for role in roles)
            width = self.inputs[0].rows // (2 if graph.mlp == "fused" else 1)
            self.down = self.matrix(f"ffn_down{suffix}", width, s.hidden)

    def has(self, name: str) -> bool:
        return self.prefix + name in self.network.weights

    def matrix(self, role: str, columns: int, rows: int | None = None, matrices: int = 1) -> Matrix:
        return self.network.weights.matrix(self.prefix + role, columns, rows, matrices)

    def vector(self, name: str, shape: tuple[int, ...] | None = None) -> Array:
        return self.network.weights.vector(self.prefix + name, shape)

    def norm(self, role: str, x: Array) -> Array:
        """The norm before attention or MLP; none in families that only norm afterwards."""
        return norm(self.network, self.prefix + role, x) if self.network.settings.graph.pre_norm else x

    def post_norm(self, role: str, x: Array) -> Array:
        """The norm of what attention or MLP gives, in families that have it."""
        return norm(self.network, self.prefix + role, x) if self.network.settings.graph.post_norm else x


def flat(x: Array) -> Array:
    """[S, T, n] as [S * T, n]."""
    return numpy.ascontiguousarray(x).reshape(-1, x.shape[-1])


def norm(network: Network, name: str, x: Array) -> Array:
    """The family's kind of norm over the last dimension, with the weights (and bias) called ``name``."""
    s, weights, operations = network.settings, network.weights, network.operations
    weight = weights.vector(f"{name}.weight")
    if s.graph.norm == "rms":
        return operations.rms_norm(x, weight, s.eps)
    bias = weights.vector(f"{name}.bias") if f"{name}.bias" in weights else None
    return operations.layer_norm(x, weight, bias, s.eps)


def attention(network: Network, layer: Layer, x: Array, cache: Cache) -> Array:
    """Self-attention of the normed stream: [S, T, H] -> [S, T, H]."""
    s, operations = network.settings, network.operations
    sequences, length, _ = x.shape
    parts = operations.multiply(flat(x), *layer.qkv)
    if s.graph.fused_qkv:
        parts = split(parts[0], (s.heads * s.key, s.kv_heads * s.key, s.kv_heads * s.value))
    q, k = (head_norm(network, layer, role, part) for role, part in zip(("attn_q_norm", "attn_k_norm"), parts[:2]))
    q = q.reshape(sequences, length, s.heads, s.key)  # [S, T, h, d]
    k = k.reshape(sequences, length, s.kv_heads, s.key)
    v = parts[2].reshape(sequences, length, s.kv_heads, s.value)
    start, windowed = cache.length[layer.index], s.window_layers[layer.index]
    if s.rotates(layer.index):
        angles = network.angles(windowed, start, start + length)
        q, k = (operations.rotate(part, angles, s.graph.rope) for part in (q, k))
    keys, values = cache.extend(layer.index, k, v, operations)  # [S, kv heads, positions so far, d]
    sinks = layer.vector("attn_sinks.weight", (s.heads,)) if s.graph.sinks else None
    mixed = operations.attend_all(
        cache.rotate_queries(q),
        keys,
        values,
        scale=s.attention_scale,
        start=start,
        window=s.window if windowed else 0,
        cap=s.attention_cap,
        sinks=sinks,
    )  # [S, T, h, d]
    mixed = cache.rotate_back(mixed)
    return operations.multiply(mixed.reshape(sequences * length, -1), layer.out)[0].reshape(x.shape)


def head_norm(network: Network, layer: Layer, role: str, x: Array) -> Array:
    """Norm of queries or keys [tokens, heads * d]: per head, or over the whole projection."""
    kind = network.settings.graph.qk_norm
    if kind is None or not layer.has(f"{role}.weight"):
        return x
    if kind == "full":
        return norm(network, layer.prefix + role, x)
    return norm(network, layer.prefix + role, x.reshape(len(x), -1, network.settings.key)).reshape(x.shape)


def feed_forward(network: Network, layer: Layer, x: Array) -> Array:
    """The MLP, the chosen experts, or both (a shared expert): [S, T, H] -> [S, T, H]."""
    rows = flat(x)
    if not layer.routed:
        return mlp(network, layer, rows).reshape(x.shape)
    result = experts(network, layer, rows)
    if layer.dense:
        shared = mlp(network, layer, rows)
        if network.settings.graph.shared_expert_gate:
            shared *= sigmoid(rows @ layer.vector("ffn_gate_inp_shexp.weight").reshape(-1, 1))
        result += shared
    return result.reshape(x.shape)


def mlp(network: Network, layer: Layer, x: Array) -> Array:
    """down(act(gate) * up), or down(act(up)): [tokens, H] -> [tokens, H]."""
    graph, operations = network.settings.graph, network.operations
    parts = operations.multiply(x, *layer.inputs)
    if graph.mlp == "fused":
        parts = split(parts[0], (layer.down.columns, layer.down.columns))
    inner = operations.activate(graph.activation, parts[0], parts[1] if len(parts) > 1 else None)
    return operations.multiply(inner, layer.down)[0]


def experts(network: Network, layer: Layer, x: Array) -> Array:
    """Each token through its best experts, mixed by their weights: [tokens, H] -> [tokens, H]."""
    s, operations = network.settings, network.operations
    (logits,) = operations.multiply(x, layer.router)  # [tokens, experts]
    chosen, share = route(network, layer, logits)  # [tokens, used] each
    gate, up = operations.multiply_experts(x, chosen, *layer.experts)  # [tokens, used, width]
    inner = operations.activate(s.graph.activation, gate, up)
    (outer,) = operations.multiply_experts(inner, chosen, layer.down_experts)  # [tokens, used, H]
    return numpy.einsum("tuh,tu->th", outer, share)


def route(network: Network, layer: Layer, logits: Array) -> tuple[Array, Array]:
    """Experts of each token and their weights, [tokens, used] each."""
    s = network.settings
    if s.gating == "softmax_chosen":
        chosen = top_indices(logits, s.experts_used)
        share = numpy.take_along_axis(logits, chosen, axis=1)
        softmax(share)
        return chosen, share
    if s.gating == "sigmoid":
        share = sigmoid(logits)
    else:
        share = logits.copy()
        softmax(share)
    biased = share + layer.vector("exp_probs_b.bias") if layer.has("exp_probs_b.bias") else share
    chosen = top_indices(biased, s.experts_used)
    share = numpy.take_along_axis(share, chosen, axis=1)
    if s.expert_norm:
        share /= share.sum(axis=1, keepdims=True)
    return chosen, share * numpy.float32(s.expert_scale)
