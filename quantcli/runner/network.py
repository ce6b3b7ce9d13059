"""The forward pass: token ids in, logits out; one path for all families, steered by their graph flags.

Shapes in comments: S sequences of equal length, T new positions each, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy

from quantcli.errors import ContextTooLong, UnsupportedGraph, UsageError, VocabularyMismatch
from quantcli.model import Model
from quantcli.runner import description, finite, layers, memory
from quantcli.runner.arrays import Floats, Tokens
from quantcli.runner.cache import Cache, LayerShape
from quantcli.runner.engine import Engine, flat
from quantcli.runner.further import Further
from quantcli.runner.gemma3n import Gemma3nLayer, Streams
from quantcli.runner.gemma4 import Gemma4Layer
from quantcli.runner.layer_inputs import LayerInputs
from quantcli.runner.layers import Layer
from quantcli.runner.observe import Observer
from quantcli.runner.operations import Operations, scale_and_cap
from quantcli.runner.positions import Angles
from quantcli.runner.weights import Packed, PackedMatrix, Weights

MOST_POSITIONS = 1 << 20  # beyond what a model was trained with: bounds the table of angles


class Network:
    """One model ready to run. ``length``: the most positions it will be asked for (default: its own context).

    ``observers`` see the inputs of every product (observe.py). One thread at a time runs a network.
    """

    both_sides = False  # whether models with an encoder beside the decoder are taken

    def __init__(
        self,
        model: Model,
        operations: Operations | None = None,
        *,
        length: int | None = None,
        kv_type: str = "F16",
        observers: Sequence[Observer] = (),
        weights: Weights | None = None,
        beyond: bool = False,
    ) -> None:
        """``weights``: the model's, some of them already in memory, or others in their place. ``beyond``: more
        positions may be asked for than the model was trained with, where its positions go on.

        Raises ContextTooLong and what `description.check` raises: what the file says is checked as a whole before a
        tensor is read.
        """
        self.model = model = model.plain()
        self.operations = operations or Operations()
        tensors = {tensor.name: tensor.shape for tensor in model.tensors}
        self.settings = description.check(model.architecture, model.metadata, tensors, model.name)
        if self.settings.sides is not None and not self.both_sides:
            raise UnsupportedGraph(
                f"{model.architecture} has an encoder beside the decoder",
                where=model.name,
                hint="`quantcli generate` runs it; convert, inspect and verify take it",
            )
        self.kv_type, self.beyond = kv_type, beyond
        self.weights = weights or Weights(model)
        self.length = self._checked(length or self.settings.context)
        self.engine = Engine(self.settings, self.weights, self.operations, self._angles(), observers)
        self.vocabulary = self.weights.rows("token_embd")  # of the output: ids are below
        self._layers: dict[int, Layer | Gemma4Layer | Gemma3nLayer] = {}

    def require(self, length: int) -> None:
        """Prepare for contexts of ``length`` positions. Raises ContextTooLong."""
        self.length = self._checked(length)
        self.engine.angles = self._angles()

    def _checked(self, length: int) -> int:
        context = self.settings.context
        goes_on = self.beyond and not (self.settings.graph.learned_positions and "position_embd.weight" in self.weights)
        most = max(context, MOST_POSITIONS) if goes_on else context
        if length > most:
            raise ContextTooLong(
                f"{length} positions, the model knows {context}", where=self.model.name, hint=f"at most -c {most}"
            )
        return length

    @property
    def warnings(self) -> list[str]:
        """What to say before something is computed that the model was not trained for."""
        if self.length <= self.settings.context:
            return []
        trained = f"the model was trained with {self.settings.context}"
        return [f"{self.model.name}: {self.length} positions, {trained}: what comes behind them may be worse"]

    def _angles(self) -> Angles:
        return Angles(self.settings, self.weights, self.length)

    @property
    def embeddings(self) -> PackedMatrix:
        """The table of token embeddings, read when first asked for."""
        return self.weights.matrix("token_embd", self.settings.hidden)

    # ---- who watches, and other weights

    @property
    def observers(self) -> Sequence[Observer]:
        """Who sees the inputs of products."""
        return self.engine.observers

    @contextmanager
    def observed_by(self, *observers: Observer) -> Iterator[None]:
        """Show products to ``observers`` too, inside the ``with``."""
        before = self.engine.observers
        self.engine.observers = [*before, *observers]
        try:
            yield
        finally:
            self.engine.observers = before

    def replacing(self, contents: Mapping[str, Packed]) -> Network:
        """The same model with other contents of the tensors named, which keep their shapes.

        Everything else is shared with this network: operations, observers, and the tensors that are in memory already.
        Raises MissingTensors, ShapeMismatch, NoKernel.
        """
        return Network(
            self.model,
            self.operations,
            length=self.length,
            kv_type=self.kv_type,
            observers=self.observers,
            weights=self.weights.replacing(contents),
            beyond=self.beyond,
        )

    # ---- weights

    def load(self) -> None:
        """Read all layers and the head now, so that the first run is not slower than the others."""
        for index in range(self.settings.layers):
            self._layer(index)
        self.head_matrix()

    def _layer(self, index: int) -> Layer | Gemma4Layer | Gemma3nLayer:
        """The layer with its tensors, read when first asked for."""
        if index not in self._layers:
            self._layers[index] = layers.make(self.engine, index)
        return self._layers[index]

    def release(self, layer: int) -> None:
        """Forget the layer's tensors."""
        self._layers.pop(layer, None)
        self.weights.release(f"blk.{layer}.")

    def release_all(self) -> None:
        """Forget all tensors, the embeddings and the head among them; they are read again when needed."""
        self._layers.clear()
        self.weights.release("")
        memory.give_back()

    def head_matrix(self) -> PackedMatrix:
        """The output matrix; the token embeddings where the model has none of its own."""
        separate = "output.weight" in self.weights
        return self.weights.matrix("output", self.settings.hidden, self.vocabulary) if separate else self.embeddings

    def new_cache(self, sequences: int, capacity: int) -> Cache:
        """An empty cache for ``sequences`` of at most ``capacity`` positions."""
        layers = [LayerShape(heads.keys, (heads.key, heads.value)) for heads in self.settings.attention]
        return Cache(self.kv_type, layers, sequences, capacity)

    # ---- the pass

    def forward(self, tokens: Tokens, cache: Cache, first_output: int = 0) -> Floats:
        """Logits [S, T - first_output, V] of the positions from ``first_output`` on.

        ``tokens``: [S, T], the continuation of what ``cache`` holds.
        """
        start = cache.length[0]
        if start and not self.settings.causal:
            raise UsageError("a model that sees both directions reads a text at once", where=self.model.name)
        if start + tokens.shape[1] > self.length:
            raise ContextTooLong(
                f"{start + tokens.shape[1]} positions, prepared for {self.length}", where=self.model.name
            )
        x = self._through(self.embed(tokens, start), cache)
        if start == 0:
            self.show_further(tokens, x)
        return self.capped(self._outputs(x[:, first_output:]))

    def stream(self, tokens: Tokens, told: Callable[[int, int], None] | None = None) -> Floats:
        """The residual stream before the head, [S, T, H], of fresh sequences ``tokens`` [S, T]; nothing is cached.

        ``told`` after every layer: layers done, of how many.
        """
        cache = self.new_cache(*tokens.shape)
        x = self.embed(tokens)
        for index in range(self.settings.layers):
            x = self.layer(index, x, cache)
            if index not in self.settings.sources[index + 1 :]:
                cache.drop(index)
            if told is not None:
                told(index + 1, self.settings.layers)
        self.show_further(tokens, x)
        return x

    def show_further(self, tokens: Tokens, x: Floats) -> None:
        """Run the layers that predict further tokens for those who observe, if anybody does: of fresh sequences
        ``tokens`` [S, T], the residual stream behind all layers [S, T, H]."""
        if self.engine.observers and self.settings.blocks > self.settings.layers:
            Further(self.engine, self.embed).show(tokens, self._normed(x))

    def states(self, tokens: Tokens) -> Floats:
        """The last hidden states, [S, T, H], of fresh sequences ``tokens`` [S, T]: what embeddings are pooled from."""
        x = self._normed(self.narrowed(self.stream(tokens)))
        return finite.check(x, "the last norm", f"{self.model.name}: output_norm.weight")

    def _normed(self, x: Floats) -> Floats:
        """The norm before the head, in models that have one."""
        name = self.settings.graph.final_norm
        return self.engine.norm(name, x) if name else x

    def logits(self, x: Floats, cache: Cache, first_output: int = 0) -> Floats:
        """From embeddings [S, T, H] to what `capped` makes logits of: [S, T - first_output, V]."""
        return self._outputs(self._through(x, cache)[:, first_output:])

    def _through(self, x: Floats, cache: Cache) -> Floats:
        """All layers: [S, T, H] -> [S, T, H]."""
        for index in range(self.settings.layers):
            x = self.layer(index, x, cache)
        return x

    def embed(self, tokens: Tokens, start: int = 0) -> Floats:
        """The residual stream before layer 0: [S, T, H]; wider in families with streams or inputs of layers."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise VocabularyMismatch(f"token {tokens.max()}, the model has {self.vocabulary}", where=self.model.name)
        if tokens.size == 1:
            x = self.embeddings.take(tokens.reshape(1)).reshape(1, 1, -1)
        else:
            known, places = numpy.unique(tokens, return_inverse=True)
            x = self.embeddings.take(known)[places.reshape(tokens.shape)]
        if self.settings.graph.learned_positions and "position_embd.weight" in self.weights:
            table = self.weights.vector("position_embd.weight")
            if start + tokens.shape[1] > len(table):
                raise ContextTooLong(
                    f"{start + tokens.shape[1]} positions, the model has {len(table)}", where=self.model.name
                )
            x += table[start : start + tokens.shape[1]]
        if self.settings.graph.token_types and "token_types.weight" in self.weights:
            x += self.weights.vector("token_types.weight").reshape(-1, self.settings.hidden)[0]
        if self.settings.embedding_scale != 1:
            x *= numpy.float32(self.settings.embedding_scale)
        if self.settings.graph.embedding_norm:
            x = self.engine.norm("token_embd_norm", x)
        return finite.check(
            self._widened(tokens, x), "the table of embeddings", f"{self.model.name}: token_embd.weight"
        )

    def _widened(self, tokens: Tokens, x: Floats) -> Floats:
        """Scaled embeddings [S, T, H] as the first layer takes them."""
        inputs = LayerInputs(self.engine, self.vocabulary).of(tokens, x) if self.settings.layer_width else None
        x = Streams(self.engine).start(x) if self.settings.graph.streams else x
        return x if inputs is None else numpy.concatenate([x, inputs], axis=-1)

    def narrowed(self, x: Floats) -> Floats:
        """What the last layer gives, as the head takes it: [S, T, H]. What it takes already stays what it is."""
        if x.shape[-1] == self.settings.hidden:
            return x
        if self.settings.graph.streams:
            return Streams(self.engine).end(x)
        return numpy.ascontiguousarray(x[..., : self.settings.hidden])

    def layer(self, index: int, x: Floats, cache: Cache) -> Floats:
        """One layer on the residual stream: [S, T, H] -> [S, T, H]. Raises NonFiniteResult, as all of the pass does."""
        with numpy.errstate(all="ignore"):  # whatever overflows is an error below
            x = self._layer(index).forward(x, cache)
        return finite.check(x, f"layer {index}", f"{self.model.name}: blk.{index}")

    def layer_parts(self, index: int) -> tuple[Callable[[Floats, Cache], Floats], ...]:
        """What `layer` does, part by part (see `Layer.parts`)."""
        return self._layer(index).parts

    def head(self, x: Floats) -> Floats:
        """Final norm, output matrix, scale and cap: [S, T, H] -> [S, T, V]."""
        return self.capped(self._outputs(x))

    def capped(self, logits: Floats) -> Floats:
        """The family's scale and cap on what the output matrix gives, in place."""
        self._checked_outputs(logits)
        return scale_and_cap(logits, self.settings.logit_scale, self.settings.final_cap)

    def log_probs(self, x: Floats) -> Floats:
        """The same as log-probabilities."""
        found = self.operations.log_softmax(self._outputs(x), self.settings.logit_scale, self.settings.final_cap)
        self._checked_outputs(found[..., :1])  # one that is not finite makes its whole row so
        return found

    def _checked_outputs(self, x: Floats) -> None:
        finite.check(x, "the output matrix or its norm", f"{self.model.name}: output_norm.weight, output.weight")

    def _outputs(self, x: Floats) -> Floats:
        (logits,) = self.engine.multiply(flat(self._normed(self.narrowed(x))), self.head_matrix())
        return logits.reshape(*x.shape[:-1], -1)
