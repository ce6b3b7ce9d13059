"""Nemotron-H: every layer is one thing, a Mamba 2 mixer, attention, an MLP or experts, behind one norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.families.mamba2 import MIXER_FACTS, MIXER_METADATA, mixer
from quantcli.vocab import VocabHints

MIXER = "layers.{layer}.mixer."
_WORDS = {"M": ("mamba", "linear_attention"), "*": ("attention", "full_attention"), "-": ("mlp",), "E": ("moe",)}


def kind(letter: str) -> Callable[[Facts], Callable[[int], bool]]:
    """The layers that ``hybrid_override_pattern`` marks with ``letter`` (or ``layers_block_type`` with its word)."""

    def layers(facts: Facts) -> Callable[[int], bool]:
        field = "hybrid_override_pattern" if facts.find("hybrid_override_pattern") else "layers_block_type"
        return decoder.layers_of(facts, letter, *_WORDS[letter], field=field)

    return layers


def layers(facts: Facts) -> int:
    words = facts.find("layers_block_type")
    return len(words) if isinstance(words, list) and words else facts.read(decoder.LAYERS)


def widths(facts: Facts) -> list[int]:
    """Width of the MLP or expert in every layer, 0 where there is none."""
    return [facts.ff if facts.feeds(layer) else 0 for layer in range(facts.layers)]


NEMOTRON_H = Family(
    name="nemotron-h",
    harmless=(
        "mamba_hidden_act",
        "moe_latent_size",
        "num_nextn_predict_layers",
    ),
    gguf_arch="nemotron_h",
    hf_architectures=("NemotronHForCausalLM",),
    model_types=("nemotron_h",),
    relative=lambda config: "nemotron-h-moe" if "num_experts_per_tok" in config else None,
    facts={
        **{name: fact for name, fact in decoder.FACTS.items() if name not in decoder.ROPE_FACTS},
        "layers": layers,
        "context": 2**20,
        "head_dim": count("head_dim", "attention_head_dim", most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
        "theta": real("rope_theta", default=None, least=1e-6),
        "turns": False,
        "eps": real("rms_norm_eps", default=None, least=0, most=1),
        "layer_eps": real("layer_norm_epsilon", "layer_norm_eps", default=None, least=0, most=1),
        "scans": kind("M"),
        "attends": kind("*"),
        "feeds": kind("-"),
        "kv_layers": decoder.key_values_in("attends"),
        "ff_layers": widths,
        "ssm_heads": count("mamba_num_heads", most=decoder.MOST_HEADS),
        "ssm_width": count("mamba_head_dim", most=decoder.MOST_WIDTH),
        "inner": lambda facts: facts.ssm_heads * facts.ssm_width,
        "state": count("ssm_state_size", most=decoder.MOST_WIDTH),
        "kernel": count("conv_kernel", most=1024),
        "groups": count("n_groups", most=decoder.MOST_HEADS),
        **MIXER_FACTS,
        "tokens": lambda facts: -(-facts.vocab // 8) * 8,
    },
    metadata=decoder.with_entries(
        decoder.SIZES + decoder.RMS + decoder.LENGTHS,
        Entry("feed_forward_length", "i32s", "ff_layers"),
        decoder.KV_HEADS_BY_LAYER,
        Entry("attention.layer_norm_epsilon", "f32", "layer_eps"),
        Entry("rope.freq_base", "f32", "theta"),
        Entry("rope.dimension_count", "u32", "head_dim"),
        Entry("rope.scaling.finetuned", "boolean", "turns"),
        *decoder.VOCAB_SIZE,
        *MIXER_METADATA,
    ),
    tensors=(
        TensorRule("embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("lm_head", "output", ("vocab", "hidden"), optional="may_tie"),
        TensorRule("norm_f", "output_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.norm", "blk.{layer}.attn_norm", decoder.VECTOR),
        *mixer("mixer", "scans"),
        *decoder.only_in(
            "attends",
            tuple(
                replace(rule, source=rule.source.replace("self_attn.", "mixer."))
                for rule in decoder.PERMUTED_PROJECTIONS + decoder.OUT_PROJECTION
            ),
        ),
        *decoder.only_in("feeds", decoder.plain_mlp("up_proj", "down_proj", MIXER)),
    ),
    prefixes=("backbone.",),
    vocab=VocabHints("nemotron_h"),
)

NEMOTRON_H_MOE = NEMOTRON_H.derive(
    "nemotron-h-moe",
    gguf_arch="nemotron_h_moe",
    hf_architectures=(),
    model_types=(),
    relative=None,
    facts={
        **decoder.EXPERT_FACTS,
        "experts": count("n_routed_experts", most=decoder.MOST_EXPERTS),
        "ff": count("moe_intermediate_size", most=decoder.MOST_WIDTH),
        "expert_ff": lambda facts: facts.ff,
        "shared_ff": count("moe_shared_expert_intermediate_size", most=decoder.MOST_WIDTH),
        "shared": count("n_shared_experts", most=decoder.MOST_EXPERTS),
        "expert_groups": count("n_group", default=None),
        "expert_groups_used": count("topk_group", default=None),
        "weights_norm": flag("norm_topk_prob"),
        "weights_scale": real("routed_scaling_factor"),
        "feeds": kind("E"),
    },
    metadata=NEMOTRON_H.metadata
    + decoder.EXPERT_COUNTS
    + (
        Entry("expert_group_count", "u32", "expert_groups"),
        Entry("expert_group_used_count", "u32", "expert_groups_used"),
        Entry("expert_feed_forward_length", "u32", "expert_ff"),
        Entry("expert_shared_feed_forward_length", "u32", "shared_ff"),
        Entry("expert_shared_count", "u32", "shared"),
        Entry("expert_weights_norm", "boolean", "weights_norm"),
        Entry("expert_weights_scale", "f32", "weights_scale"),
    ),
    tensors=NEMOTRON_H.tensors[:-2]
    + decoder.router("mixer.gate", layers="feeds")
    + (
        TensorRule(
            MIXER + "gate.e_score_correction_bias", "blk.{layer}.exp_probs_b.bias", ("experts",), exact=True,
            layers="feeds",
        ),
        TensorRule(MIXER + "shared_experts.up_proj", "blk.{layer}.ffn_up_shexp", ("shared_ff", "hidden"),
                   layers="feeds"),
        TensorRule(MIXER + "shared_experts.down_proj", "blk.{layer}.ffn_down_shexp", ("hidden", "shared_ff"),
                   layers="feeds"),
    )
    + decoder.experts("mixer.experts", ("down_proj", "down"), ("up_proj", "up"), layers="feeds"),
)  # fmt: skip

FAMILIES = (NEMOTRON_H, NEMOTRON_H_MOE)
