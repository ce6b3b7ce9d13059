"""How the predictions of a Llama-like model change with its embeddings and what its matrices give: a backward pass.

For a token y drawn from the model's own prediction at every position, g0 = d log p(y) / d(embedding), summed over the
positions behind; E[g0 g0^T] is the Fisher information of the embeddings, which is what the divergence of a changed row
grows with. With g at a matrix's output in its place, it says how the errors of the matrix's rows add up. Forward the
runner's own layers, whose inputs are kept; backward each layer is computed again in plain numpy, with what its Jacobian
needs. Shapes: S sequences, T positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy

from quantcli.calibration import probes
from quantcli.calibration.quality import GRADIENT_TOKENS
from quantcli.runner import finite, llama_like
from quantcli.runner.arrays import Doubles, Floats, Tokens
from quantcli.runner.network import Network
from quantcli.runner.positions import AngleTable, rotate
from quantcli.runner.settings import Heads
from quantcli.runner.text import Chunks

Backward = Callable[[Floats], Floats]  # the loss's gradient at what was computed -> that at what it was computed from

MOST_POSITIONS = 2048  # that run together
SEED = 20_260_102
MOST_OF_STREAM = 2 << 30  # bytes of moments at outputs that lead to the stream, all layers; where it were more, none


@dataclass
class Information:
    """Second moments of gradients, and of what the output matrix reads.

    ``head``: Hx = E[(1 - sum p^2) x x^T] of the normed outputs x; ``embeddings``: S = E[g0 g0^T] at the table's rows;
    both float64 [H, H]: what an error of a row costs in the output matrix and as an embedding. ``outputs``: by tensor
    name the sums of g g^T at the outputs of a layer's matrices, float32 [2, parts, w, w]: over every other sequence,
    and over those between; a head's w rows are a part, of what leads to the residual stream all rows are one, if that
    is not too much memory. Gates and up projections are not among them: E[g g^T] is no more than its diagonal there.
    But row i of a gate and row i of an up projection meet in one neuron: ``pairs``, by the name of the up projection
    the sums of g g^T of the two, the gate's first, float32 [2, rows, 2, 2].
    """

    head: Doubles
    embeddings: Doubles
    outputs: dict[str, Floats] = field(default_factory=dict)
    pairs: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Gradients:
    """The information of a model on a text, found when it is asked for and once for all that a command writes."""

    network: Network
    chunks: Chunks
    most: int = GRADIENT_TOKENS  # tokens of it

    @cached_property
    def found(self) -> Information | None:
        """None: the model is not plain enough."""
        if not can(self.network):
            return None
        some = probes.some_of(self.chunks, self.most)
        first = 0 if self.chunks.bos is None else 1  # its row is looked after by itself
        return information(self.network, some.inputs(0, len(some)), SEED, first=first)


def can(network: Network) -> bool:
    """Whether the model is plain enough."""
    return not llama_like.differences(network.settings)


def information(network: Network, inputs: Tokens, seed: int, *, first: int = 0) -> Information:
    """Over the positions from ``first`` on of ``inputs`` [S, T]. ``seed``: of the drawn tokens."""
    shape = (network.settings.hidden,) * 2
    found = Information(numpy.zeros(shape), numpy.zeros(shape))
    count = 0
    together = max(1, MOST_POSITIONS // inputs.shape[1])
    for start in range(0, len(inputs), together):
        random = numpy.random.default_rng((seed, start))
        count += _add(network, inputs[start : start + together], random, found, first, start % 2)
    settings = network.settings
    found.head *= settings.logit_scale**2 / count
    found.embeddings *= settings.embedding_scale**2 / count
    return found


def _add(
    network: Network, ids: Tokens, random: numpy.random.Generator, found: Information, first: int, half: int
) -> int:
    """The sums of one batch, whose first sequence is of ``half``, into ``found``; how many positions they are of."""
    settings = network.settings
    whole = 2 * 2 * 4 * settings.layers * settings.hidden**2 <= MOST_OF_STREAM

    def see(outputs: Mapping[str, Floats], gates: Mapping[str, tuple[Floats, Floats]]) -> None:
        for name, gradient in outputs.items():  # [S, T, parts, rows of a part]
            parts, width = gradient.shape[2:]
            if parts == 1 and width == settings.hidden and not whole:
                continue
            total = found.outputs.setdefault(name, numpy.zeros((2, parts, width, width), numpy.float32))
            for number in range(2):
                flat = gradient[(half + number) % 2 :: 2, first:].reshape(-1, parts, width).transpose(1, 0, 2)
                total[number] += flat.transpose(0, 2, 1) @ flat
        for name, both in gates.items():  # [S, T, rows]
            total = found.pairs.setdefault(name, numpy.zeros((2, both[0].shape[-1], 2, 2), numpy.float32))
            for number in range(2):
                some = [one[(half + number) % 2 :: 2, first:] for one in both]
                for i, j in numpy.ndindex(2, 2):
                    total[number, :, i, j] += numpy.einsum("stm,stm->m", some[i], some[j])

    gradient, seen = at_embeddings(network, ids, random, see)
    for total, values in ((found.head, seen), (found.embeddings, gradient)):
        flat = values[:, first:].reshape(-1, values.shape[-1])
        total += flat.T @ flat
    return len(flat)


def at_embeddings(
    network: Network,
    ids: Tokens,
    random: numpy.random.Generator,
    see: Callable[[Mapping[str, Floats], Mapping[str, tuple[Floats, Floats]]], None] | None = None,
) -> tuple[Floats, Floats]:
    """g0 [S, T, H] of tokens ``ids`` [S, T], before the factor of the embeddings; and x sqrt(1 - sum p^2) [S, T, H].

    ``see`` gets the gradients at the outputs of each layer's matrices, [S, T, parts, rows of a part] by tensor name,
    and by the name of an up projection those of the gate and of it, [S, T, rows].
    Raises NonFiniteResult.
    """
    x, cache, entered = network.embed(ids), network.new_cache(*ids.shape), []
    for index in range(network.settings.layers):
        entered.append(x)
        x = finite.check(network.layer(index, x, cache), f"layer {index}", f"{network.model.name}: blk.{index}")
        cache.drop(index)
        network.release(index)
    gradient, seen = _at_head(network, x, random)
    for index in reversed(range(network.settings.layers)):
        layer = _Layer(network, index)
        gradient = layer.backward(entered.pop(), gradient)
        if see is not None:
            see(layer.outputs, layer.gates)
        network.release(index)
    return gradient, seen


def _at_head(network: Network, x: Floats, random: numpy.random.Generator) -> tuple[Floats, Floats]:
    """The gradient of log p(y) at the stream behind all layers, y drawn at every position; and x sqrt(1 - sum p^2)."""
    head = network.head_matrix().decode()
    seen, norm = _rms(x, network.weights.vector("output_norm.weight").reshape(-1), network.settings.eps)
    result = numpy.empty_like(x)
    for number in range(len(x)):
        chances = numpy.exp(network.log_probs(x[number : number + 1])[0])
        seen[number] *= numpy.sqrt(numpy.maximum(0, 1 - numpy.einsum("ij,ij->i", chances, chances)))[:, None]
        drawn = (numpy.cumsum(chances, axis=1, dtype=numpy.float64) < random.random(len(chances))[:, None]).sum(axis=1)
        chances *= numpy.float32(-1)
        chances[numpy.arange(len(chances)), numpy.minimum(drawn, chances.shape[1] - 1)] += 1
        result[number] = chances @ head
    return norm(result * numpy.float32(network.settings.logit_scale)), seen


def _rms(x: Floats, weight: Floats, eps: float) -> tuple[Floats, Backward]:
    """RMS norm of the last axis, and its backward pass."""
    inverse = 1 / numpy.sqrt(numpy.square(x).mean(axis=-1, keepdims=True, dtype=numpy.float32) + numpy.float32(eps))
    unit = x * inverse

    def backward(gradient: Floats) -> Floats:
        pulled = gradient * weight
        along = (pulled * unit).mean(axis=-1, keepdims=True, dtype=numpy.float32)
        result: Floats = inverse * (pulled - unit * along)
        return result

    return unit * weight, backward


class _Layer:
    """One layer's matrices as float32, and its backward pass."""

    def __init__(self, network: Network, index: int) -> None:
        self.network, self.settings, self.index = network, network.settings, index
        self.heads: Heads = network.settings.attention[index]
        self.share = numpy.float32(network.settings.residual_scale)
        self.decoded: dict[str, Floats] = {}
        self.outputs: dict[str, Floats] = {}  # gradients at them, [S, T, parts, rows of a part]
        self.gates: dict[str, tuple[Floats, Floats]] = {}  # gate's and up projection's, [S, T, rows]

    def backward(self, x: Floats, gradient: Floats) -> Floats:
        """``x`` [S, T, H] what entered the layer, ``gradient`` at what left it -> that at ``x``."""
        eps = self.settings.eps
        normed, first_norm = _rms(x, self._vector("attn_norm"), eps)
        mixed, attention = self._attention(normed)
        middle: Floats = x + self._product(mixed, "attn_output") * self.share
        normed, second_norm = _rms(middle, self._vector("ffn_norm"), eps)
        at_mlp: Floats = gradient * self.share
        at_middle: Floats = gradient + second_norm(self._mlp_backward(normed, at_mlp))
        at_output: Floats = (at_middle * self.share).astype(numpy.float32)
        self._note("ffn_down", at_mlp[:, :, None])
        self._note("attn_output", at_output[:, :, None])
        at_attention = at_output @ self._matrix("attn_output")
        result: Floats = at_middle + first_norm(attention(at_attention))
        return result

    def _note(self, name: str, gradient: Floats) -> None:
        self.outputs[f"blk.{self.index}.{name}.weight"] = gradient

    def _matrix(self, name: str) -> Floats:
        """Decoded once, for the pass forward and the one backward."""
        if name not in self.decoded:
            weights, prefix = self.network.weights, f"blk.{self.index}.{name}"
            self.decoded[name] = weights.matrix(prefix, weights.columns(prefix)).decode()
        return self.decoded[name]

    def _vector(self, name: str) -> Floats:
        return self.network.weights.vector(f"blk.{self.index}.{name}.weight").reshape(-1)

    def _product(self, x: Floats, name: str) -> Floats:
        result: Floats = x @ self._matrix(name).T
        bias = f"blk.{self.index}.{name}.bias"
        return result + self.network.weights.vector(bias).reshape(-1) if bias in self.network.weights else result

    def _mlp_backward(self, x: Floats, gradient: Floats) -> Floats:
        gate, up = self._product(x, "ffn_gate"), self._product(x, "ffn_up")
        with numpy.errstate(over="ignore"):  # exp of a very negative gate: its share is 0
            share: Floats = (1 / (1 + numpy.exp(-gate))).astype(numpy.float32)
        back = gradient @ self._matrix("ffn_down")
        to_gate: Floats = back * up * share * (1 + gate * (1 - share))
        to_up: Floats = back * gate * share
        self.gates[f"blk.{self.index}.ffn_up.weight"] = to_gate, to_up
        result: Floats = to_gate @ self._matrix("ffn_gate") + to_up @ self._matrix("ffn_up")
        return result

    # ---- attention

    def _attention(self, x: Floats) -> tuple[Floats, Backward]:
        """What the heads mix, [S, T, queries * value], and the gradient at it -> that at ``x``."""
        (q, to_q), (k, to_k) = self._turned(x, "attn_q", self.heads.queries), self._turned(x, "attn_k", self.heads.keys)
        v = self._product(x, "attn_v").reshape(*x.shape[:2], self.heads.keys, self.heads.value)
        mixed, parts = numpy.empty((*x.shape[:2], self.heads.queries, self.heads.value), numpy.float32), []
        for sequence, head, chances in self._chances(q, k):
            mixed[sequence, :, head] = chances @ v[sequence, :, self._key_of(head)]
            parts.append((sequence, head, chances))

        def backward(gradient: Floats) -> Floats:
            outputs = gradient.reshape(mixed.shape)
            at_q, at_k, at_v = (numpy.zeros_like(part) for part in (q, k, v))
            scale = numpy.float32(self.settings.attention_scale)
            for sequence, head, chances in parts:
                key, own = self._key_of(head), outputs[sequence, :, head]
                at_v[sequence, :, key] += chances.T @ own
                at_chances = own @ v[sequence, :, key].T
                scores = chances * (at_chances - (at_chances * chances).sum(axis=1, keepdims=True)) * scale
                at_q[sequence, :, head] += scores @ k[sequence, :, key]
                at_k[sequence, :, key] += scores.T @ q[sequence, :, head]
            self._note("attn_v", at_v)
            flat = at_v.reshape(*x.shape[:2], -1) @ self._matrix("attn_v")
            result: Floats = to_q(at_q) + to_k(at_k) + flat
            return result

        return mixed.reshape(*x.shape[:2], -1), backward

    def _key_of(self, head: int) -> int:
        return head // (self.heads.queries // self.heads.keys)

    def _chances(self, q: Floats, k: Floats) -> Iterator[tuple[int, int, Floats]]:
        """Of every sequence and head, what each position [T] takes of each [T]."""
        hidden = numpy.triu(numpy.full((q.shape[1],) * 2, -numpy.inf, numpy.float32), 1)
        scale = numpy.float32(self.settings.attention_scale)
        for sequence in range(len(q)):
            for head in range(self.heads.queries):
                scores = q[sequence, :, head] @ k[sequence, :, self._key_of(head)].T * scale + hidden
                scores = numpy.exp(scores - scores.max(axis=1, keepdims=True))
                yield sequence, head, scores / scores.sum(axis=1, keepdims=True)

    def _turned(self, x: Floats, name: str, heads: int) -> tuple[Floats, Backward]:
        """Queries or keys [S, T, heads, width] behind their norm and rotation, and the gradient there -> at ``x``."""
        values = self._product(x, name).reshape(*x.shape[:2], heads, self.heads.key)
        norm: Backward | None = None
        if f"blk.{self.index}.{name}_norm.weight" in self.network.weights:
            values, norm = _rms(values, self._vector(f"{name}_norm"), self.settings.eps)
        turns, kind = self.settings.rotates(self.index), self.settings.graph.rope
        cosine, sine = self._angles(x.shape[1])
        if turns:
            values = rotate(values, (cosine, sine), kind)

        def backward(gradient: Floats) -> Floats:
            if turns:
                gradient = rotate(gradient, (cosine, -sine), kind)
            if norm is not None:
                gradient = norm(gradient)
            self._note(name, gradient)
            result: Floats = gradient.reshape(*x.shape[:2], -1) @ self._matrix(name)
            return result

        return values, backward

    def _angles(self, positions: int) -> AngleTable:
        return self.network.engine.angles.between(False, 0, positions)
