"""The shared base: what Llama-like decoders have in common, as pieces that family files put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, flag, real, text
from quantcli.families.transforms import Transform, permuted, rows

# Limits of llama.cpp's loader, and sizes beyond anything that was ever trained.
MOST_LAYERS, MOST_EXPERTS, MOST_HEADS, MOST_WIDTH = 512, 1024, 2**16, 2**24

# ---- facts ---------------------------------------------------------------------------------------------------

# Names are tried in this order, as llama.cpp's converter does.
LAYERS = count("n_layers", "num_hidden_layers", "n_layer", "num_layers", most=MOST_LAYERS)
HIDDEN = count("hidden_size", "n_embd", "dim", most=MOST_WIDTH)
FEED_FORWARD = count("intermediate_size", "n_inner", "hidden_dim", most=MOST_WIDTH)
HEADS = count("num_attention_heads", "n_head", "n_heads", most=MOST_HEADS)
KV_HEADS = count("num_key_value_heads", "n_kv_heads", most=MOST_HEADS, default="=heads")
VOCAB = count("vocab_size", most=MOST_WIDTH)
CONTEXT_NAMES = (
    "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length",
)  # fmt: skip
THETA_NAMES = ("rope_theta", "global_rope_theta", "rotary_emb_base")


def context(default: int) -> object:
    """Trained context; ``default`` is the config class's."""
    return count(*CONTEXT_NAMES, default=default)


def theta(default: float = 10000.0) -> object:
    return real(*THETA_NAMES, default=default, least=1e-6)


def stated_theta(facts: Facts) -> float | None:
    """The base of the rotation where the config names one; llama.cpp takes 10000 otherwise."""
    return cast("float | None", facts.read(real(*THETA_NAMES, default=None, least=1e-6)))


def rms_eps(default: float) -> object:
    return real("rms_norm_eps", "norm_eps", default=default, least=0, most=1)


def layer_eps(default: float) -> object:
    return real("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", default=default, least=0, most=1)


def key_value_heads(default: object = "=heads") -> object:
    return count("num_key_value_heads", "n_kv_heads", most=MOST_HEADS, default=default)


def head_dim(facts: Facts) -> int:
    """The head's width as given, else hidden / heads."""
    given: int | None = facts.read(count("head_dim", default=None, most=MOST_WIDTH))
    return given or facts.quotient("hidden", "heads", ("hidden_size", "num_attention_heads"))


def given_head_dim(facts: Facts) -> int | None:
    """key_length of families whose config class has no head_dim of its own: only what config.json says."""
    given: int | None = facts.read(count("head_dim", default=None))
    return given


def four_times_hidden(facts: Facts) -> int:
    """The MLP's width where the config does not give it."""
    return facts.size("4*hidden")


def key_value_width(facts: Facts) -> int:
    facts.quotient("heads", "kv_heads", ("num_attention_heads", "num_key_value_heads"))
    return facts.size("kv_heads*head_dim")


def partial_rotary(default: float) -> object:
    """Rotated dimensions of a head: partial_rotary_factor of it."""

    def dims(facts: Facts) -> int:
        factor = facts.read(real("partial_rotary_factor", "rotary_pct", default=default, least=0, most=1))
        return int(facts.head_dim * factor)

    return dims


# The base of the rotation in layers with a window, where they have their own.
LOCAL_THETA = real("rope_local_base_freq", "rope_local_theta", default=None, least=1e-6)
# Where the config class has no default of its own.
GIVEN_WINDOW = count("sliding_window", default=None)


def window(default: int) -> Callable[[Facts], int | None]:
    """Positions that a layer with a window sees; null in config.json says that there are no windows."""

    def positions(facts: Facts) -> int | None:
        none = "sliding_window" in facts.config and facts.config["sliding_window"] is None
        return None if none else facts.read(count("sliding_window", default=default))

    return positions


def window_pattern(default: int) -> Callable[[Facts], list[bool] | None]:
    """Whether each layer has a window: as ``layer_types`` says, or ``sliding_window_pattern`` (a period: all but the
    last layer of each; or letters, L for a window); ``default`` is the period. None without windows."""

    def layers(facts: Facts) -> list[bool] | None:
        kinds, pattern = facts.config.get("layer_types"), facts.config.get("sliding_window_pattern")
        if facts.window is None:
            return None
        if kinds is not None:
            return [kind == "sliding_attention" for kind in layer_list(facts, "layer_types", "kinds of layers")]
        own = range(own_layers(facts))
        if isinstance(pattern, str) and pattern:
            return [pattern[layer % len(pattern)] == "L" for layer in own]
        period = facts.read(count("sliding_window_pattern", default=default))
        return [(layer + 1) % period != 0 for layer in own]

    return layers


def own_layers(facts: Facts) -> int:
    """The layers of the model itself, without those that predict further tokens (nextn.py)."""
    own: int = facts.main_layers if "main_layers" in facts.declared else facts.layers
    return own


def layer_list(facts: Facts, name: str, what: str) -> list[object]:
    """The list of config.json that has one entry for every layer of the model itself; ``what`` for the error."""
    found, own = facts.find(name), own_layers(facts)
    if not isinstance(found, list) or len(found) != own:
        raise bad(name, f"is no list of {own} {what}")
    return found


def scaling(facts: Facts) -> str | None:
    """The kind of rope scaling, None for none. Kinds without a GGUF counterpart are left to ``notes``."""
    settings = facts.config.get("rope_scaling")
    if settings is not None and not isinstance(settings, Mapping):
        raise bad("rope_scaling", "is no object")
    kind = facts.read(text("rope_scaling.rope_type", "rope_scaling.type", default="default"))
    return {"default": None, "none": None, "mrope": None, "su": "longrope"}.get(kind, kind)


def sections(facts: Facts) -> list[int] | None:
    """How many pairs of a head rotate by time, height, width and a fourth position: m-rope, which vision needs. All of
    them are equal in a text."""
    found = facts.find("rope_scaling.mrope_section")
    if found is None:
        return None
    if not isinstance(found, list) or not all(type(pairs) is int and 0 <= pairs < MOST_WIDTH for pairs in found):
        raise bad("rope_scaling.mrope_section", "is no list of numbers of pairs")
    return [*found, 0, 0, 0, 0][:4]


def _scaling_value(field: object, *kinds: str) -> object:
    """A field of rope_scaling that counts for some kinds only."""
    return lambda facts: facts.read(field) if facts.scaling in kinds else None


ROPE_FACTS = {
    "theta": theta(),
    "scaling": scaling,
    "scaling_type": lambda facts: facts.scaling if facts.scaling in ("linear", "yarn", "longrope") else None,
    "scaling_factor": _scaling_value(real("rope_scaling.factor", least=1e-6), "linear", "yarn"),
    "scaling_context": _scaling_value(
        count("rope_scaling.original_max_position_embeddings", "original_max_position_embeddings", default=None), "yarn"
    ),
    "yarn_ext": _scaling_value(real("rope_scaling.extrapolation_factor", default=None), "yarn"),
    "yarn_attn": _scaling_value(real("rope_scaling.attention_factor", default=None), "yarn"),
    "yarn_fast": _scaling_value(real("rope_scaling.beta_fast", default=None), "yarn"),
    "yarn_slow": _scaling_value(real("rope_scaling.beta_slow", default=None), "yarn"),
    "sections": sections,
}

# Whatever the attention is; FACTS adds heads of one width, with key/value heads that may be fewer.
CORE_FACTS = {
    "layers": LAYERS,
    "context": context(2048),
    "hidden": HIDDEN,
    "ff": FEED_FORWARD,
    "heads": HEADS,
    "vocab": VOCAB,
    "eps": rms_eps(1e-6),
    **ROPE_FACTS,
    # A head may only be missing where the config does not say outright that the embeddings are not tied.
    "may_tie": lambda facts: facts.read(flag("tie_word_embeddings", default=True)),
}

FACTS = {
    **CORE_FACTS,
    "kv_heads": KV_HEADS,
    "head_dim": head_dim,
    "key_length": given_head_dim,
    "q": lambda facts: facts.heads * facts.head_dim,
    "kv": key_value_width,
}

EXPERT_COUNT = count("num_local_experts", "num_experts", "n_routed_experts", most=MOST_EXPERTS)
EXPERT_FACTS = {
    "experts": EXPERT_COUNT,
    "experts_used": count("num_experts_per_tok", "num_experts_per_token", "top_k_experts", most=MOST_EXPERTS),
}

# ---- metadata ------------------------------------------------------------------------------------------------

SIZES = (
    Entry("block_count", "u32", "layers"),
    Entry("context_length", "u32", "context"),
    Entry("embedding_length", "u32", "hidden"),
    Entry("feed_forward_length", "u32", "ff"),
    Entry("attention.head_count", "u32", "heads"),
    Entry("attention.head_count_kv", "u32", "kv_heads"),
)
ROPE = (
    Entry("rope.scaling.type", "string", "scaling_type"),
    Entry("rope.scaling.factor", "f32", "scaling_factor"),
    Entry("rope.scaling.original_context_length", "u32", "scaling_context"),
    Entry("rope.scaling.yarn_ext_factor", "f32", "yarn_ext"),
    Entry("rope.scaling.yarn_attn_factor", "f32", "yarn_attn"),
    Entry("rope.scaling.yarn_beta_fast", "f32", "yarn_fast"),
    Entry("rope.scaling.yarn_beta_slow", "f32", "yarn_slow"),
    Entry("rope.dimension_sections", "i32s", "sections"),
    Entry("rope.freq_base", "f32", "theta"),
)
RMS = (Entry("attention.layer_norm_rms_epsilon", "f32", "eps"),)
LAYER_NORM = (Entry("attention.layer_norm_epsilon", "f32", "eps"),)
LENGTHS = (
    Entry("attention.key_length", "u32", "key_length"),
    Entry("attention.value_length", "u32", "key_length"),
)
VOCAB_SIZE = (Entry("vocab_size", "u32", "vocab"),)
ROPE_DIMS = (Entry("rope.dimension_count", "u32", "rope_dims"),)
EXPERT_COUNTS = (Entry("expert_count", "u32", "experts"), Entry("expert_used_count", "u32", "experts_used"))
PARALLEL_RESIDUAL = (Entry("use_parallel_residual", "boolean", "parallel"),)
WINDOW = (Entry("attention.sliding_window", "u32", "window"),)
WINDOW_PATTERN = (Entry("attention.sliding_window_pattern", "booleans", "window_pattern"),)
WINDOWS = WINDOW + WINDOW_PATTERN
LOCAL_ROPE = (Entry("rope.freq_base_swa", "f32", "local_theta"),)  # of layers with a window

METADATA = SIZES + ROPE + RMS + LENGTHS


def with_entries(base: tuple[Entry, ...], *entries: Entry) -> tuple[Entry, ...]:
    """``base`` with ``entries`` in the place of those that have their keys, the others behind."""
    keys = {entry.key for entry in entries}
    return tuple(entry for entry in base if entry.key not in keys) + entries


def without_entries(base: tuple[Entry, ...], *keys: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in base if entry.key not in keys)


def only_in(layers: str, rules: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """``rules`` for those layers alone that the fact ``layers`` names."""
    return tuple(replace(rule, layers=layers) for rule in rules)


def key_values_in(attends: str) -> Callable[[Facts], list[int]]:
    """Key/value heads of every layer, 0 where there is no attention; ``attends`` names the fact that tells."""
    return lambda facts: [facts.kv_heads if facts[attends](layer) else 0 for layer in range(facts.layers)]


def layers_of(facts: Facts, *kinds: str, field: str = "layer_types") -> Callable[[int], bool]:
    """Which layers are of one of ``kinds``, as the list ``field`` of config.json says."""
    given = facts.find(field)
    if not isinstance(given, (list, str)) or len(given) != facts.layers:
        raise bad(field, f"is no list of {facts.layers} kinds of layers")
    return lambda layer: given[layer] in kinds


KV_HEADS_BY_LAYER = Entry("attention.head_count_kv", "i32s", "kv_layers")

# ---- tensors -------------------------------------------------------------------------------------------------

VECTOR = ("hidden",)
EMBEDDINGS = (TensorRule("embed_tokens", "token_embd", ("vocab", "hidden"), bias="none"),)
HEAD = (TensorRule("lm_head", "output", ("vocab", "hidden"), optional="may_tie"),)
FINAL_NORM = (TensorRule("norm", "output_norm", VECTOR),)
PROJECTIONS = (
    TensorRule("layers.{layer}.self_attn.q_proj", "blk.{layer}.attn_q", ("q", "hidden")),
    TensorRule("layers.{layer}.self_attn.k_proj", "blk.{layer}.attn_k", ("kv", "hidden")),
    TensorRule("layers.{layer}.self_attn.v_proj", "blk.{layer}.attn_v", ("kv", "hidden")),
)
PERMUTED_PROJECTIONS = (
    TensorRule("layers.{layer}.self_attn.q_proj", "blk.{layer}.attn_q", ("q", "hidden"), permuted("heads")),
    TensorRule("layers.{layer}.self_attn.k_proj", "blk.{layer}.attn_k", ("kv", "hidden"), permuted("kv_heads")),
    PROJECTIONS[2],
)
BIASED_PROJECTIONS = tuple(TensorRule(rule.source, rule.target, rule.shape, bias="required") for rule in PROJECTIONS)
OUT_PROJECTION = (TensorRule("layers.{layer}.self_attn.o_proj", "blk.{layer}.attn_output", ("hidden", "q")),)
HEAD_NORMS = (
    TensorRule("layers.{layer}.self_attn.q_norm", "blk.{layer}.attn_q_norm", ("head_dim",)),
    TensorRule("layers.{layer}.self_attn.k_norm", "blk.{layer}.attn_k_norm", ("head_dim",)),
)
FULL_NORMS = (
    TensorRule("layers.{layer}.self_attn.q_norm", "blk.{layer}.attn_q_norm", ("q",)),
    TensorRule("layers.{layer}.self_attn.k_norm", "blk.{layer}.attn_k_norm", ("kv",)),
)
PRE_NORMS = (
    TensorRule("layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", VECTOR),
    TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.ffn_norm", VECTOR),
)
POST_NORMS = (
    TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", VECTOR),
    TensorRule("layers.{layer}.post_feedforward_layernorm", "blk.{layer}.post_ffw_norm", VECTOR),
)
GATED_MLP = (
    TensorRule("layers.{layer}.mlp.gate_proj", "blk.{layer}.ffn_gate", ("ff", "hidden")),
    TensorRule("layers.{layer}.mlp.up_proj", "blk.{layer}.ffn_up", ("ff", "hidden")),
    TensorRule("layers.{layer}.mlp.down_proj", "blk.{layer}.ffn_down", ("hidden", "ff")),
)
# gate and up in one matrix, gate rows first; llama.cpp reads it so
FUSED_MLP = (
    TensorRule("layers.{layer}.mlp.gate_up_proj", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
    GATED_MLP[2],
)


def when(rules: Sequence[TensorRule], fact: str) -> tuple[TensorRule, ...]:
    """The same rules, which exist where the fact is true only."""
    return tuple(replace(rule, when=fact) for rule in rules)


def plain_mlp(up: str, down: str, block: str = "layers.{layer}.mlp.") -> tuple[TensorRule, ...]:
    """An MLP of two matrices, by their names in the checkpoint."""
    return (
        TensorRule(block + up, "blk.{layer}.ffn_up", ("ff", "hidden")),
        TensorRule(block + down, "blk.{layer}.ffn_down", ("hidden", "ff")),
    )


def experts(prefix: str, *kinds: tuple[str, str], layers: str | None = None) -> tuple[TensorRule, ...]:
    """One matrix per expert and kind, stacked along the slowest dimension; ``kinds``: (checkpoint's name, role)."""
    shapes = {"gate": ("expert_ff", "hidden"), "up": ("expert_ff", "hidden"), "down": ("hidden", "expert_ff")}
    source, target = f"layers.{{layer}}.{prefix}.{{expert}}.", "blk.{layer}.ffn_"
    return tuple(
        TensorRule(source + name, f"{target}{role}_exps", shapes[role], bias="none", layers=layers)
        for name, role in kinds
    )


def divided(
    source: str, shape: tuple[str, str], *parts: tuple[str, str, str, Transform | None]
) -> tuple[TensorRule, ...]:
    """One matrix of the checkpoint cut into several; ``parts``: (GGUF name, first row, row behind, transform)."""
    return tuple(
        TensorRule(source, target, shape, rows(start, stop) | transform if transform else rows(start, stop))
        for target, start, stop, transform in parts
    )


# The order in which llama.cpp's converter writes them.
EXPERT_KINDS = (("down_proj", "down"), ("gate_proj", "gate"), ("up_proj", "up"))


def shared_experts(prefix: str, layers: str | None = None, when: str | None = None) -> tuple[TensorRule, ...]:
    """The expert that every token takes, of width ``shared_ff``."""
    name = f"layers.{{layer}}.{prefix}."
    shapes = {"down": ("hidden", "shared_ff"), "gate": ("shared_ff", "hidden"), "up": ("shared_ff", "hidden")}
    return tuple(
        TensorRule(
            f"{name}{kind}_proj", f"blk.{{layer}}.ffn_{kind}_shexp", shape, bias="none", layers=layers, when=when
        )
        for kind, shape in shapes.items()
    )


def router(source: str, layers: str | None = None) -> tuple[TensorRule, ...]:
    return (TensorRule("layers.{layer}." + source, "blk.{layer}.ffn_gate_inp", ("experts", "hidden"), layers=layers),)


TOP = EMBEDDINGS + HEAD + FINAL_NORM
TENSORS = TOP + PRE_NORMS + PROJECTIONS + OUT_PROJECTION + GATED_MLP
PERMUTED_TENSORS = TOP + PRE_NORMS + PERMUTED_PROJECTIONS + OUT_PROJECTION + GATED_MLP
