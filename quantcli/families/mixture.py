"""Mixtures of experts of today: some dense layers, then routed experts with groups, biases, scales, shared experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, flag, real, text

SCORING = (
    "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
    "expert_selection_fn",
)  # fmt: skip
GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}  # llama.cpp's numbers
SIGMOID = GATING["sigmoid"]


# ---- facts ---------------------------------------------------------------------------------------------------


def gating(facts: Facts) -> int | None:
    """How the router scores, by llama.cpp's number; None where config.json does not say."""
    kind = facts.read(text(*SCORING, default=None))
    if kind is not None and kind not in GATING:
        raise bad("scoring_func", f"{kind!r} is unknown")
    return None if kind is None else GATING[kind]


def dense_layers(facts: Facts) -> int:
    """How many layers in front have a plain MLP: as counted, or listed in ``mlp_layer_types``."""
    given = facts.read(count(*DENSE_LAYERS, default=None, least=0))
    if given is not None or facts.find("mlp_layer_types") is None:
        return given or 0
    kinds = decoder.layer_list(facts, "mlp_layer_types", "kinds of MLPs")
    return next((layer for layer, kind in enumerate(kinds) if kind != "dense"), len(kinds))


def is_dense(facts: Facts) -> Callable[[int], bool]:
    return lambda layer: layer < facts.dense_layers


def is_sparse(facts: Facts) -> Callable[[int], bool]:
    return lambda layer: not facts.dense(layer)


def alike(name: str, most: int) -> Callable[[Facts], int]:
    """A number that config.json states once, or for every layer in a list of equal ones."""

    def read(facts: Facts) -> int:
        given = facts.find(name)
        first = given[0] if isinstance(given, list) and given else given
        if type(first) is not int or (isinstance(given, list) and any(value != first for value in given)):
            raise bad(name, "is no whole number that is the same in all layers")
        if not 1 <= first <= most:
            raise bad(name, f"is {first}; 1 to {most} is possible")
        return first

    return read


DENSE_LAYERS = ("first_k_dense_replace", "first_last_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
MAY_LACK_EXPERTS = replace(decoder.EXPERT_COUNT, default=None)
EXPERT_WIDTH = count("moe_intermediate_size", most=decoder.MOST_WIDTH)
SCALE_NAMES = ("routed_scaling_factor", "route_scale", "router_scaling_factor", "moe_routed_scaling_factor")
FACTS = {
    **decoder.EXPERT_FACTS,
    "groups": count("n_group", default=None),
    "groups_used": count("topk_group", default=None),
    "gating": gating,
    "expert_ff": EXPERT_WIDTH,
    "shared": count("n_shared_experts", "num_shared_experts", default=0, least=0, most=decoder.MOST_EXPERTS),
    "shared_ff": lambda facts: facts.shared * facts.expert_ff,
    "weights_scale": real(*SCALE_NAMES, default=None),
    "weights_norm": flag("norm_topk_prob", "route_norm", default=None),
    "dense_layers": dense_layers,
    "dense": is_dense,
    "sparse": is_sparse,
}

# ---- metadata ------------------------------------------------------------------------------------------------

GROUPS = (
    Entry("expert_group_count", "u32", "groups"),
    Entry("expert_group_used_count", "u32", "groups_used"),
)
GATING_ENTRY = (Entry("expert_gating_func", "u32", "gating"),)
COUNTS = decoder.EXPERT_COUNTS + GROUPS + GATING_ENTRY
WIDTH = (Entry("expert_feed_forward_length", "u32", "expert_ff"),)
SHARED = (Entry("expert_shared_count", "u32", "shared"),)
SHARED_WIDTH = (Entry("expert_shared_feed_forward_length", "u32", "shared_ff"),)
LEADING = (Entry("leading_dense_block_count", "u32", "dense_layers"),)
WEIGHTS = (
    Entry("expert_weights_scale", "f32", "weights_scale"),
    Entry("expert_weights_norm", "boolean", "weights_norm"),
)

# ---- tensors -------------------------------------------------------------------------------------------------


DENSE_MLP = decoder.only_in("dense", decoder.GATED_MLP)
# llama.cpp's converter writes stacked experts in one of two orders.
NUMBERED = (("w1", "gate"), ("w2", "down"), ("w3", "up"))
GATE_FIRST = (("gate_proj", "gate"), ("up_proj", "up"), ("down_proj", "down"))


def router_bias(
    source: str,
    layers: str | None = "sparse",
    target: str = "exp_probs_b.bias",
    shape: tuple[str | int, ...] = ("experts",),
) -> tuple[TensorRule, ...]:
    """What is added to the scores for the choice of experts alone."""
    source, target = f"layers.{{layer}}.{source}", f"blk.{{layer}}.{target}"
    return (TensorRule(source, target, shape, exact=True, optional=True, layers=layers),)


def routed(
    block: str = "mlp",
    *,
    router: str = "gate",
    bias: str | None = "gate.e_score_correction_bias",
    kinds: Sequence[tuple[str, str]] = decoder.EXPERT_KINDS,
    shared: str | None = "shared_experts",
    layers: str | None = "sparse",
) -> tuple[TensorRule, ...]:
    """Router, its bias, routed and shared experts below the ``block`` of a layer."""
    return (
        *decoder.router(f"{block}.{router}", layers=layers),
        *(router_bias(f"{block}.{bias}", layers) if bias else ()),
        *decoder.experts(f"{block}.experts", *kinds, layers=layers),
        *(decoder.shared_experts(f"{block}.{shared}", when="shared", layers=layers) if shared else ()),
    )
