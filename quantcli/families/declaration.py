"""The vocabulary in which model families are declared: tensors, metadata, graph flags (config fields: ``fields.py``).

A family is data. ``facts`` says which numbers are read from config.json (and what the transformers config classes
take when a field is absent), ``metadata`` which facts become which GGUF entries, ``tensors`` which checkpoint tensor
becomes which GGUF tensor through which transform, ``graph`` what the forward pass has to know beyond the metadata.
Dimensions are written symbolically over the facts: ``"heads*head_dim"``, ``"q+2*kv"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from quantcli.vocab import VocabHints

if TYPE_CHECKING:
    from quantcli.families.facts import Facts
    from quantcli.families.transforms import Transform


@dataclass(frozen=True, slots=True)
class Entry:
    """GGUF metadata ``key`` of value type ``type`` <- ``fact``, omitted when None.

    The key is below the architecture's name, unless it starts with "tokenizer.".
    """

    key: str
    type: str  # a helper of container: "u32", "f32", "boolean", "string"
    fact: str


@dataclass(frozen=True, slots=True)
class TensorRule:
    """One kind of tensor: checkpoint name -> GGUF name through ``transform``, once per layer (and stacked per expert).

    Names hold ``{layer}`` and ``{expert}``; a leading "model." of the checkpoint is not written. ``shape`` is the
    checkpoint's (torch order). Where ``exact`` is false both names get ".weight", and a ".bias" beside it is taken
    along (``bias``: "optional", "required" or "none"; it passes through those transforms that move rows).
    ``layers`` names a fact, a function (layer) -> bool: the layers that have this rule. ``depth`` names the fact
    that counts the layers of this rule (an encoder-decoder has two). ``optional`` may name a fact: absence is fine when
    it is true. A rule with ``when`` only exists when that fact is true. A bias has ``shape[bias_axis]`` elements.
    """

    source: str
    target: str
    shape: tuple[str | int, ...]
    transform: Transform | None = None
    optional: bool | str = False
    bias: str = "optional"
    bias_axis: int = 0
    exact: bool = False
    layers: str | None = None
    depth: str = "layers"
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Extra:
    """A GGUF tensor that is computed from config.json: ``values(facts)`` gives its numbers, or None for no tensor."""

    target: str
    values: Callable[[Facts], Sequence[float] | None]


@dataclass(frozen=True, slots=True)
class Graph:
    """What the forward pass needs to know and GGUF metadata does not say. Defaults are those of Llama.

    Whatever metadata does hold (head counts, eps, rope base and scaling, soft caps, window, expert counts, scales)
    is read from there, so that a GGUF file and a checkpoint run the same code. Biases, q/k norms, sinks and a
    separate output matrix are used where their tensors are present.
    """

    # normalisation
    norm: str = "rms"  # "rms": attention.layer_norm_rms_epsilon; "layer": layer_norm_epsilon, bias where present
    pre_norm: bool = True  # attn_norm / ffn_norm before attention and MLP
    post_norm: bool = False  # post_attention_norm / post_ffw_norm on their outputs, before the residual sum
    parallel: bool = False  # attention and MLP both read the layer's input, normed by attn_norm, or each by its own
    #                         where ffn_norm exists; one residual sum. Metadata use_parallel_residual goes first
    second_norm: str = "ffn_norm"  # name of the tensor that norms the MLP's input
    qk_norm: str | None = None  # "head": per head over head_dim; "full": over the whole projection;
    #                           "each": per head with weights of its own [heads, head_dim]; always before rope
    # positions
    rope: str = "norm"  # "norm": pairs (2i, 2i+1); "neox": pairs (i, i + n/2); "none"
    rope_skip_period: int = 0  # p > 0: layers with (i + 1) % p == 0 have no rotation (SmolLM3: 4)
    learned_positions: bool = False  # position_embd is added to the embeddings
    # attention
    fused_qkv: bool = False  # attn_qkv holds q, k and v rows in this order
    latent: bool = False  # multi-head latent attention (attn_kv_a_mqa, attn_k_b, attn_v_b)
    window_period: int = 0  # p > 0: with a window, layer i uses it if i % p < p - 1; 1: every layer
    window_rope_base: float | None = None  # rope base of window layers where metadata has no rope.freq_base_swa
    scaled_window_rope: bool = True  # False: rope scaling applies to layers without window only (gemma3)
    attention_scale: str = "head_dim"  # 1/sqrt(head_dim) unless metadata has attention.scale; "one": not scaled
    wide_query_layers: int = 0  # a model of this many layers scales by 1/sqrt(hidden/heads) instead (Gemma 27B)
    sinks: bool = False  # attn_sinks: one extra logit per head in the softmax
    causal: bool = True
    # MLP
    mlp: str = "gated"  # "gated": down(act(gate) * up); "fused": ffn_up holds gate then up rows; "plain": down(act(up))
    activation: str = "silu"  # "silu", "gelu" (erf), "gelu_tanh", "relu", "relu2" (squared), "swiglu_oai" (clamped)
    # experts (where expert_count > 0)
    expert_gating: str = "softmax"  # "softmax", "sigmoid", "softmax_chosen" (softmax over the chosen logits)
    expert_norm: bool = True  # the chosen weights are divided by their sum (else metadata expert_weights_norm)
    shared_expert_gate: bool = False  # the shared expert is multiplied by sigmoid(ffn_gate_inp_shexp . x)
    # scales
    embedding_scale: str | None = None  # "sqrt_hidden": embeddings times sqrt(embedding_length), in float32
    logit_scale: str = "multiply"  # how metadata logit_scale is used: "multiply" or "divide"
    recurrent: str | None = None  # "mamba": no attention at all
    encoder_decoder: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """One model family. ``base.derive(...)`` makes a relative that differs in a few fields."""

    name: str
    gguf_arch: str
    hf_architectures: tuple[str, ...]
    facts: Mapping[str, Any]  # name -> Field, a function (facts) -> value, or a constant; evaluated in order
    metadata: tuple[Entry, ...]
    tensors: tuple[TensorRule, ...]
    vocab: VocabHints
    graph: Graph = Graph()
    model_types: tuple[str, ...] = ()  # config.json model_type, for the text part of multimodal checkpoints
    extras: tuple[Extra, ...] = ()
    ignored: tuple[str, ...] = ()  # shell patterns of tensors to leave out silently
    ignored_if: tuple[tuple[str, str], ...] = ()  # (pattern, fact): left out when the fact is true
    prefixes: tuple[str, ...] = ("model.",)
    skip_layers_beyond: bool = False  # tensors of layers after the last one are left out (multi-token heads)
    vocab_for: Callable[[Facts, VocabHints], VocabHints] | None = None  # hints that depend on the config
    cut_embeddings: bool = False  # token_embd rows beyond the tokenizer's size are cut
    same: Mapping[str, str] = field(default_factory=dict)  # names under which a tensor may be stored as well

    def derive(self, name: str, **changes: Any) -> Family:
        """A relative: ``facts`` are merged over the base's, ``graph`` may be a dict of changes, the rest replaces."""
        if "facts" in changes:
            changes["facts"] = {**self.facts, **changes["facts"]}
        if isinstance(changes.get("graph"), Mapping):
            changes["graph"] = replace(self.graph, **changes["graph"])
        arch = changes.get("gguf_arch", self.gguf_arch)
        vocab = changes.get("vocab", self.vocab)
        if isinstance(vocab, Mapping):
            vocab = replace(self.vocab, **vocab)
        changes["vocab"] = replace(vocab, architecture=arch)
        return replace(self, name=name, **changes)
