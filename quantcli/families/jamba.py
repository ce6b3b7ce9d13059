"""Jamba: Mamba with norms on step, input and output, attention in every eighth layer, experts in every second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.families.mamba import MAMBA, MIXER
from quantcli.vocab import VocabHints

SSM = "layers.{layer}.mamba."


def every(period: str, offset: str, defaults: tuple[int, int]) -> Callable[[Facts], Callable[[int], bool]]:
    """The layers from an offset on, a period apart."""

    def layers(facts: Facts) -> Callable[[int], bool]:
        step = facts.read(count(period, default=defaults[0]))
        start = facts.read(count(offset, default=defaults[1], least=0))
        return lambda layer: layer >= start and (layer - start) % step == 0

    return layers


def step_rank(facts: Facts) -> int:
    """Width of the step-size projection; "auto" is ceil(hidden / 16)."""
    if facts.config.get("mamba_dt_rank", "auto") == "auto":
        return -(-facts.size("hidden") // 16)
    rank: int = facts.read(count("mamba_dt_rank", most=decoder.MOST_WIDTH))
    return rank


def _moved(rule: TensorRule) -> TensorRule:
    return replace(rule, source=rule.source.replace(".mlp.", ".feed_forward."), layers="dense")


JAMBA = Family(
    name="jamba",
    gguf_arch="jamba",
    hf_architectures=("JambaForCausalLM",),
    model_types=("jamba",),
    facts={
        **{name: fact for name, fact in decoder.FACTS.items() if name not in decoder.ROPE_FACTS},
        "context": decoder.context(262144),
        "kv_heads": decoder.key_value_heads(8),
        **decoder.EXPERT_FACTS,
        "experts": count("num_local_experts", "num_experts", default=16, most=decoder.MOST_EXPERTS),
        "experts_used": count("num_experts_per_tok", default=2, most=decoder.MOST_EXPERTS),
        "expert_ff": lambda facts: facts.ff,
        "attends": every("attn_layer_period", "attn_layer_offset", (8, 4)),
        "scans": lambda facts: lambda layer: not facts.attends(layer),
        "routes": every("expert_layer_period", "expert_layer_offset", (2, 1)),
        "sparse": lambda facts: lambda layer: facts.experts > 1 and facts.routes(layer),
        "dense": lambda facts: lambda layer: not facts.sparse(layer),
        "kv_layers": decoder.key_values_in("attends"),
        "expand": count("mamba_expand", default=2, most=1024),
        "inner": lambda facts: facts.expand * facts.hidden,
        "state": count("mamba_d_state", default=16, most=decoder.MOST_WIDTH),
        "kernel": count("mamba_d_conv", default=4, most=1024),
        "rank": step_rank,
    },
    metadata=decoder.with_entries(decoder.SIZES + decoder.RMS, decoder.KV_HEADS_BY_LAYER)
    + decoder.EXPERT_COUNTS
    + tuple(entry for entry in MAMBA.metadata if entry.key.startswith("ssm.") and entry.fact != "normed"),
    tensors=(
        *decoder.EMBEDDINGS,
        *decoder.HEAD,
        TensorRule("final_layernorm", "output_norm", decoder.VECTOR),
        decoder.PRE_NORMS[0],
        TensorRule("layers.{layer}.pre_ff_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        *decoder.only_in("attends", decoder.PROJECTIONS + decoder.OUT_PROJECTION),
        *(
            replace(rule, source=rule.source.replace(MIXER, SSM), layers="scans")
            for rule in MAMBA.tensors
            if rule.source.startswith(MIXER)
        ),
        TensorRule(SSM + "dt_layernorm", "blk.{layer}.ssm_dt_norm", ("rank",), layers="scans"),
        TensorRule(SSM + "b_layernorm", "blk.{layer}.ssm_b_norm", ("state",), layers="scans"),
        TensorRule(SSM + "c_layernorm", "blk.{layer}.ssm_c_norm", ("state",), layers="scans"),
        *map(_moved, decoder.GATED_MLP),
        *decoder.router("feed_forward.router", layers="sparse"),
        *decoder.experts("feed_forward.experts", *decoder.EXPERT_KINDS, layers="sparse"),
    ),
    spellings={".moe.": ".feed_forward."},
    vocab=VocabHints("jamba"),
)

FAMILIES = (JAMBA,)
