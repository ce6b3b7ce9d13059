"""Models with an encoder beside the decoder (T5): one text is read at once, another is written with a view of both.

Shapes: S sequences, E positions of the text that is read, T new ones of the text that is written, H hidden, V
vocabulary; heads h of width d.
"""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias

import numpy

from quantcli.errors import ContextTooLong, UsageError
from quantcli.runner import buckets, finite
from quantcli.runner.arrays import Floats, Tokens
from quantcli.runner.cache import Cache, LayerShape
from quantcli.runner.engine import Engine, flat
from quantcli.runner.feed_forward import Mlp
from quantcli.runner.network import Network
from quantcli.runner.positions import Distances
from quantcli.runner.sides import Sides

KeysAndValues: TypeAlias = tuple[Floats, Floats]  # [S, h, positions, d] each


class Projections:
    """The four matrices of one attention, ``<name>_q`` to ``<name>_o``."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, s = engine, engine.settings
        self.query, self.key, self.value = (
            engine.weights.matrix(f"{name}_{part}", s.hidden, s.heads * width)
            for part, width in (("q", s.key), ("k", s.key), ("v", s.value))
        )
        self.output = engine.weights.matrix(f"{name}_o", s.heads * s.value, s.hidden)

    def all(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Queries, keys, values, [S, T, h, d] each, of the normed stream [S, T, H]."""
        q, k, v = self.engine.multiply(flat(x), self.query, self.key, self.value)
        return self._heads(q, x), self._heads(k, x), self._heads(v, x)

    def queries(self, x: Floats) -> Floats:
        return self._heads(self.engine.multiply(flat(x), self.query)[0], x)

    def memory(self, states: Floats) -> KeysAndValues:
        """Keys and values of what the encoder has made of a text [S, E, H]."""
        k, v = self.engine.multiply(flat(states), self.key, self.value)
        return self._heads(k, states).transpose(0, 2, 1, 3), self._heads(v, states).transpose(0, 2, 1, 3)

    def back(self, mixed: Floats) -> Floats:
        """[S, T, h, d] -> [S, T, H]."""
        (result,) = self.engine.multiply(mixed.reshape(mixed.shape[0] * mixed.shape[1], -1), self.output)
        return result.reshape(*mixed.shape[:2], -1)

    def _heads(self, parts: Floats, x: Floats) -> Floats:
        return parts.reshape(*x.shape[:2], self.engine.settings.heads, -1)


class Block:
    """One layer of a side: attention to its own text, in the decoder attention to the other one, an MLP."""

    def __init__(self, engine: Engine, side: str, index: int) -> None:
        """``side``: "enc" or "dec". Raises MissingTensors, ShapeMismatch, NoKernel."""
        self.engine, self.index, self.prefix = engine, index, f"{side}.blk.{index}."
        self.own = Projections(engine, f"{self.prefix}attn")
        self.other = Projections(engine, f"{self.prefix}cross_attn") if side == "dec" else None
        self.feed_forward = Mlp(engine, self.prefix)

    def encode(self, x: Floats, distances: Distances) -> Floats:
        """[S, E, H] -> [S, E, H]: every position sees every other."""
        q, k, v = self.own.all(self._normed("attn_norm", x))
        mixed = self.engine.operations.attend_all(
            q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), scale=self.engine.settings.attention_scale, start=0,
            ahead=x.shape[1], distances=distances,
        )  # fmt: skip
        return self._fed(self._plus(x, self.own.back(mixed)))

    def memory(self, states: Floats) -> KeysAndValues:
        """Keys and values of what the encoder has made of a text [S, E, H]."""
        if self.other is None:
            raise ValueError("an encoder looks at no other text")
        return self.other.memory(states)

    def decode(self, x: Floats, cache: Memory, distances: Distances) -> Floats:
        """[S, T, H] -> [S, T, H]; the new positions' keys and values go into ``cache``."""
        start, scale = cache.length[self.index], self.engine.settings.attention_scale
        q, k, v = self.own.all(self._normed("attn_norm", x))
        keys, values = cache.extend(self.index, k, v, self.engine.operations)
        mixed = self.engine.operations.attend_all(
            cache.rotate_queries(self.index, q), keys, values, scale=scale, start=start, distances=distances
        )
        x = self._plus(x, self.own.back(cache.rotate_back(self.index, mixed)))
        return self._fed(self._plus(x, self._looked(self._normed("cross_attn_norm", x), cache.memory[self.index])))

    def _looked(self, x: Floats, memory: KeysAndValues) -> Floats:
        """Attention to all positions of the text that was read."""
        if self.other is None:
            raise ValueError("an encoder looks at no other text")
        keys, values = memory
        there, queries, pieces = keys.shape[2], self.other.queries(x), []
        for first in range(0, x.shape[1], there):  # so many at once as there are keys
            piece = numpy.ascontiguousarray(queries[:, first : first + there])
            count = piece.shape[1]
            scale = self.engine.settings.attention_scale
            pieces.append(
                self.engine.operations.attend_all(piece, keys, values, scale=scale, start=there - count, ahead=count)
            )
        return self.other.back(pieces[0] if len(pieces) == 1 else numpy.concatenate(pieces, axis=1))

    def _fed(self, x: Floats) -> Floats:
        return self._plus(x, self.feed_forward.forward(self._normed("ffn_norm", x)))

    def _normed(self, role: str, x: Floats) -> Floats:
        return self.engine.norm(self.prefix + role, x)

    def _plus(self, x: Floats, y: Floats) -> Floats:
        return self.engine.operations.add(x, y)


class Memory(Cache):
    """The cache of a decoder, with the keys and values of the text that was read, per layer."""

    memory: list[KeysAndValues]


class EncoderDecoder(Network):
    """As a `Network`, whose tokens are those of the decoder: `read` comes first."""

    both_sides = True

    def states(self, tokens: Tokens) -> Floats:
        """What the encoder makes of ``tokens`` [S, E]: [S, E, H]."""
        if tokens.shape[1] > self.length:
            raise ContextTooLong(f"{tokens.shape[1]} positions, prepared for {self.length}", where=self.model.name)
        x = self.embed(tokens)
        for index in range(self.settings.layers):
            block = Block(self.engine, "enc", index)
            x = block.encode(x, self._distances("enc", index, tokens.shape[1]))
            finite.check(x, f"layer {index} of the encoder", f"{self.model.name}: enc.blk.{index}")
        return self.engine.norm("enc.output_norm", x)

    def read(self, tokens: Tokens, capacity: int) -> Memory:
        """Read a text ``tokens`` [S, E]; the cache for ``capacity`` positions of another. Raises UsageError."""
        if not self._sides.decoder_layers:
            raise UsageError("the model has an encoder only, and writes nothing", where=self.model.name)
        s, states = self.settings, self.states(tokens)
        layers = [LayerShape(s.heads, (s.key, s.value))] * self._sides.decoder_layers
        cache = Memory(self.kv_type, layers, len(tokens), capacity)
        cache.memory = [self._block(index).memory(states) for index in range(self._sides.decoder_layers)]
        return cache

    def _through(self, x: Floats, cache: Cache) -> Floats:
        if not isinstance(cache, Memory):
            raise ValueError("the decoder needs the text that was read")
        for index in range(self._sides.decoder_layers):
            x = self._block(index).decode(x, cache, self._distances("dec", index, self.length))
            finite.check(x, f"layer {index} of the decoder", f"{self.model.name}: dec.blk.{index}")
        return x

    def _block(self, index: int) -> Block:
        """A layer of the decoder, made when first asked for."""
        if index not in self._decoder:
            self._decoder[index] = Block(self.engine, "dec", index)
        return self._decoder[index]

    def _distances(self, side: str, index: int, length: int) -> Distances:
        """The biases of a layer: its own, or those of its side's first one."""
        own = f"{side}.blk.{index}.attn_rel_b.weight"
        name = own if own in self.weights else f"{side}.blk.0.attn_rel_b.weight"
        if (name, length) not in self._biases:
            table = self.weights.vector(name)
            self._biases[name, length] = buckets.biases(table, length, both=side == "enc")
        return self._biases[name, length]

    @cached_property
    def _decoder(self) -> dict[int, Block]:
        return {}

    @cached_property
    def _biases(self) -> dict[tuple[str, int], Distances]:
        return {}

    @property
    def start(self) -> int:
        """The token that the decoder begins with."""
        return self._sides.start

    @property
    def _sides(self) -> Sides:
        if self.settings.sides is None:
            raise ValueError(f"{self.settings.architecture} has one side")
        return self.settings.sides
