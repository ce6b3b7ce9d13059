"""The vocabulary in which GGUF architectures are declared: how they compute, and what the recipes know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
QueryNorm = Literal["head", "full", "each"]
Rope = Literal["norm", "neox", "none"]
Mlp = Literal["gated", "fused", "plain"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_oai", "xielu"]
Gating = Literal["softmax", "sigmoid", "softmax_chosen"]
Classifier = Literal["tanh", "gelu", "softmax"]
Head = Literal["optional", "required", "none"]
Recurrent = Literal["mamba", "mamba2", "plamo2", "short_convolution", "delta", "kimi_delta", "rwkv6", "rwkv7"]
RecurrentLayers = Literal["all", "beside", "without_key_values", "listed"]


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """What the forward pass needs to know and GGUF metadata does not say. Defaults are those of Llama.

    Whatever metadata does hold (head counts, eps, rope base and scaling, soft caps, window, expert counts, scales)
    is read from there, so that a GGUF file and a checkpoint run the same code; ``keys.py`` says which entries. Biases,
    q/k norms, sinks and a separate output matrix are used where their tensors are present.
    """

    # normalisation
    norm: Norm = "rms"  # epsilon: attention.layer_norm_rms_epsilon or layer_norm_epsilon; "layer" has a bias or none
    norm_weights: bool = True  # False: norms have neither weights nor bias
    norm_bias: bool = False  # an RMS norm may have a bias, as LayerNorm may
    embedding_norm: bool = False  # token_embd_norm after the embeddings
    pre_norm: bool = True  # attn_norm / ffn_norm before attention and MLP
    first_norm: bool = True  # False: layer 0 may lack attn_norm
    post_norm: bool = False  # post_attention_norm / post_ffw_norm on their outputs, before the residual sum
    attention_post_norm: str = "post_attention_norm"  # name of the first of the two
    sum_norm: bool = False  # attn_output_norm / layer_output_norm after the residual sums
    inner_norm: bool = False  # attn_sub_norm / ffn_sub_norm before the matrices that lead back to the stream
    final_norm: str | None = "output_norm"  # what is normed with before the head
    parallel: bool = False  # attention and MLP both read the layer's input, normed by attn_norm, or each by its own
    #                         where ffn_norm exists; one residual sum. Metadata use_parallel_residual goes first
    second_norm: str = "ffn_norm"  # name of the tensor that norms the MLP's input
    qk_norm: QueryNorm | None = None  # "head": per head over head_dim; "full": over the whole projection;
    #                                   "each": per head with weights of its own [heads, head_dim]; before rope
    late_qk_norm: bool = False  # behind rope
    # positions and kinds of tokens
    token_types: bool = False  # the first row of token_types is added to every embedding
    rope: Rope = "norm"  # "norm": pairs (2i, 2i+1); "neox": pairs (i, i + n/2)
    rope_share: float = 1.0  # of what rotates in layers with a window, those without one rotate this part
    rope_skip_period: int = 0  # p > 0: layers with (i + 1) % p == 0 have no rotation (SmolLM3: 4)
    rope_in_windows: bool = False  # in a model with windows, only the layers that have one rotate
    rope_all_layers: int = 0  # a model of this many layers rotates in all of them all the same
    rope_in_dense: bool = False  # and so do the leading layers without experts
    rope_layers: int = 0  # only a model of this many layers rotates, one of another depth has no rotation
    learned_positions: bool = False  # position_embd is added to the embeddings (beside linear biases where it is there)
    alibi: float | None = None  # linear biases: the largest one where metadata has no attention.max_alibi_bias; 0: none
    alibi_layers: int = 0  # only a model of this many layers has them
    # attention
    fused_qkv: bool = False  # attn_qkv holds q, k and v rows in this order (or they are apart, as in the file)
    gaps: bool = False  # a layer may lack attention or MLP; without key heads attn_output alone stands for attention
    latent: bool = False  # multi-head latent attention (attn_kv_a_mqa, attn_k_b, attn_v_b)
    window_period: int = 0  # p > 0: with a window, layer i uses it if i % p < p - 1; 1: every layer; 0: no windows.
    #                         Metadata sliding_window_pattern goes first
    window_divisors: bool = True  # False: rope_freqs is for layers without window only
    window_last_full: bool = True  # False: the first of every period has no window, instead of the last
    window_size: int = 0  # llama.cpp's own, whatever metadata says
    window_depth: int = 0  # only a model of this many layers has windows
    chunked: int = 0  # windows are chunks: position i sees those of its own run of as many positions
    own_window_base: bool = True  # False: llama.cpp does not read rope.freq_base_swa
    window_rope_base: float | None = None  # rope base of window layers where metadata has no rope.freq_base_swa
    scaled_window_rope: bool = True  # False: rope scaling applies to layers without window only (gemma3)
    # 1/sqrt(head_dim), 1, or "inverse": 1/head_dim; if not metadata attention.scale
    attention_scale: Literal["head_dim", "one", "inverse"] = "head_dim"
    wide_query_layers: int = 0  # a model of this many layers scales by 1/sqrt(hidden/heads) instead (Gemma 27B)
    unit_qk_norm: int = 0  # queries and keys that rotate have unit mean square, unless there are as many experts
    temperature: tuple[int, float] | None = None  # (n, s): queries that do not rotate times 1 + s ln(1 + position // n)
    attention_gate: Literal["sigmoid", "softplus"] | None = None  # of attn_gate . x, times what attention mixes
    value_norm: bool = False  # values have unit mean square; without attn_v they are the keys before their norm
    indexer_rope: Rope = "norm"
    indexer: bool = False  # keys are chosen by scores of their own (indexer.*)
    sinks: bool = False  # attn_sinks: one extra logit per head in the softmax
    sinks_optional: bool = False  # not every layer has them
    causal: bool = True  # False: a position sees those behind it too, if not metadata attention.causal
    symmetric_window: bool = False  # a window reaches half its width to each side
    # MLP
    mlp: Mlp = "gated"  # "gated": down(act(gate) * up); "fused": ffn_up holds gate then up rows; "plain": down(act(up))
    activation: Activation = "silu"  # "gelu" is the one with erf, "relu2" is squared, "swiglu_oai" is clamped,
    #                               "xielu" has parameters in metadata
    # what gate and up of a layer are bounded by, where metadata swiglu_clamp_exp (experts) or swiglu_clamp_shexp (the
    # others) says so: up to both sides, the gate from above, before it is activated ("gate") or behind that
    limited: Literal["gate", "activated"] | None = None
    # experts (where expert_count > 0)
    expert_gating: Gating = "softmax"  # "softmax_chosen": softmax over the chosen logits
    expert_norm: bool = True  # the chosen weights are divided by their sum (else metadata expert_weights_norm)
    expert_first: bool = False  # the best logits are chosen, and weight the experts' inputs instead of their outputs
    early_router: bool = False  # the router reads the layer's input, before any norm
    shared_expert: Literal["sum", "average"] = "sum"  # how it joins the others
    beside_experts: bool = False  # an MLP beside the experts: (both added) * sqrt(1/2)
    guessed_sigmoid: tuple[int, ...] = ()  # tokens, then numbers of layers: such a model routes by sigmoid if it does
    #                                        not say how
    gated_experts: bool = True  # False: experts are "plain"
    shared_expert_gate: bool = False  # the shared expert is multiplied by sigmoid(ffn_gate_inp_shexp . x)
    # a classifier behind the pooling
    classifier: Classifier | None = None  # what follows its first layer, cls ("softmax": there is none, and one behind
    #                                       cls.output)
    # scales
    # MiniCPM 3: the factor of embeddings, that of residual sums times sqrt(layers), that of logits times hidden
    constant_scales: tuple[float, float, float] | None = None
    embedding_scale: Literal["sqrt_hidden"] | None = None  # embeddings times sqrt(embedding_length), in float32
    logit_scale: Literal["multiply", "divide"] = "multiply"  # how metadata logit_scale is used
    # layers with a state instead of attention, or beside it
    recurrent: Recurrent | None = None
    # "all": no attention at all; "beside": both in every layer, summed; "without_key_values": layers whose
    # attention.head_count_kv is 0; "listed": attention.recurrent_layers or full_attention_interval
    recurrent_layers: RecurrentLayers = "all"
    gated_attention: bool = False  # attn_q holds for every head its queries, then a gate: sigmoid(gate) * output
    tiled_heads: bool = False  # value head h of a delta rule reads key head h % groups, else h / (heads / groups)
    rope_switch: bool = False  # metadata rope.scaling.finetuned false: nothing rotates
    bare_norms: tuple[str, ...] = ()  # norms whose tensors have no ".weight"
    encoder_decoder: bool = False  # tensors of enc.blk.N and dec.blk.N, distances as biases
    decodes: bool = True  # False: of an encoder-decoder, the encoder alone
    layer_inputs: bool = False  # Gemma 4: embeddings for every layer, shared keys, layers of two widths
    streams: bool = False  # Gemma 3n: beside that, several streams side by side


@dataclass(frozen=True, slots=True, repr=False)
class Architecture:
    """One GGUF architecture.

    ``reads`` and ``harmless`` are metadata keys below the architecture's name. Every entry that the forward pass reads
    must be declared: the common ones follow from the graph (``keys.py``), ``reads`` has those beyond. ``harmless``
    are entries beyond the common ones that change no logit. The runner refuses a file with any other entry.
    """

    name: str
    graph: Graph | None = None  # None: this package does not know how it computes
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # those of ``reads`` without which llama.cpp takes other numbers than none
    harmless: tuple[str, ...] = ()
    head: Head = "optional"  # output.weight in llama.cpp's loader; "none": a file that holds one does not load
    # What llama-quantize knows by the architecture's name
    kept: tuple[str, ...] = ()  # parts of names of tensors that keep their type (beyond those of every architecture)
    pinned: tuple[str, ...] = ()  # parts of names of matrices that every quantized file type keeps at Q8_0
    layers_of_70b: int = 0  # layers (without those that predict further tokens) of models that count as 70B
    grouped_70b: bool = False  # they count only where they have fewer key/value heads than heads
    recipe_variant: str | None = None  # the condition by which rules of the recipes mean this architecture
