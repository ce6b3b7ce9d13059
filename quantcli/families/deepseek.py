"""DeepSeek V2 and V3: latent attention, a few dense layers, then stacked and shared experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder, glm4, mixture, nextn
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.families.llama import LLAMA
from quantcli.families.transforms import regrouped, shaped, transposed
from quantcli.vocab import VocabHints

ATTENTION = "layers.{layer}.self_attn."


def log_multiplier(facts: Facts) -> float | None:
    return 0.1 * facts.mscale_all if facts.mscale_all else None


def dense_layers(facts: Facts) -> int:
    """All layers of a model without experts."""
    leading: int = mixture.dense_layers(facts)
    return leading if facts.experts else leading or decoder.own_layers(facts)


def full_indexers(facts: Facts) -> list[bool] | None:
    """Whether each layer has an indexer of its own; None where config.json does not say."""
    if facts.find("indexer_types") is None:
        return None
    return [kind == "full" for kind in decoder.layer_list(facts, "indexer_types", "kinds of indexers")]


def indexes(facts: Facts) -> Callable[[int], bool]:
    full = facts.indexer_types
    return lambda layer: full is None or layer >= len(full) or full[layer]


def glm_rope_dims(facts: Facts) -> int:
    factor: float = facts.read(real("partial_rotary_factor", default=1.0, least=0, most=1))
    return int(facts.read(ROPE_DIMS) * factor)


# kv_b holds per head the rows that make k (without its rotated part), then those that make v.
KV_B_GRID = ("heads", "nope+value", "kv_rank")
KEY_PART = regrouped((*KV_B_GRID[:2], 1), pick={1: (0, "nope", 1)}) | shaped("heads", "nope", "kv_rank") | transposed()
VALUE_PART = regrouped((*KV_B_GRID[:2], 1), pick={1: ("nope", "nope+value", 1)}) | shaped("heads", "value", "kv_rank")

ROPE_DIMS = count("qk_rope_head_dim", most=decoder.MOST_WIDTH)
DEEPSEEK2 = Family(
    name="deepseek2", harmless=("topk_method", "num_nextn_predict_layers", "mscale",),
    gguf_arch="deepseek2",
    hf_architectures=(
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM",
        "KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration",
    ),
    model_types=("deepseek_v2", "deepseek_v3", "kimi_k2"),
    facts={
        **decoder.CORE_FACTS,
        "mscale_all": real("rope_scaling.mscale_all_dim", default=None),
        "log_multiplier": log_multiplier,
        "tied": flag("tie_word_embeddings", default=False),
        "one": 1,
        "q_rank": count("q_lora_rank", default=None, most=decoder.MOST_WIDTH),
        "q_direct": lambda facts: facts.q_rank is None,
        "kv_rank": count("kv_lora_rank", most=decoder.MOST_WIDTH),
        "nope": count("qk_nope_head_dim", most=decoder.MOST_WIDTH),
        "rope_dims": ROPE_DIMS,
        "value": count("v_head_dim", most=decoder.MOST_WIDTH),
        "key": lambda facts: facts.nope + facts.rope_dims,
        "key_length": lambda facts: facts.kv_rank + facts.rope_dims,
        **mixture.FACTS,
        "experts": mixture.MAY_LACK_EXPERTS,
        "experts_used": count("num_experts_per_tok", "num_experts_per_token", default=None, most=decoder.MOST_EXPERTS),
        "expert_ff": count("moe_intermediate_size", "intermediate_size", most=decoder.MOST_WIDTH),
        "weights_norm": lambda facts: facts.read(flag("norm_topk_prob", default=False)) or None,
        "dense_layers": dense_layers,
    },
    metadata=tuple(replace(entry, fact="one") if entry.fact == "kv_heads" else entry for entry in decoder.SIZES)
    + decoder.ROPE
    + decoder.RMS
    + mixture.COUNTS
    + (
        Entry("attention.key_length", "u32", "key_length"),
        Entry("attention.value_length", "u32", "kv_rank"),
        *mixture.LEADING,
        *decoder.VOCAB_SIZE,
        Entry("attention.q_lora_rank", "u32", "q_rank"),
        Entry("attention.kv_lora_rank", "u32", "kv_rank"),
        Entry("attention.key_length_mla", "u32", "key"),
        Entry("attention.value_length_mla", "u32", "value"),
        *mixture.WIDTH,
        *mixture.SHARED,
        *mixture.WEIGHTS,
        *decoder.ROPE_DIMS,
        Entry("rope.scaling.yarn_log_multiplier", "f32", "log_multiplier"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + (
        TensorRule(ATTENTION + "q_proj", "blk.{layer}.attn_q", ("heads*key", "hidden"), when="q_direct"),
        TensorRule(ATTENTION + "q_a_proj", "blk.{layer}.attn_q_a", ("q_rank", "hidden"), when="q_rank"),
        TensorRule(ATTENTION + "q_a_layernorm", "blk.{layer}.attn_q_a_norm", ("q_rank",), when="q_rank"),
        TensorRule(ATTENTION + "q_b_proj", "blk.{layer}.attn_q_b", ("heads*key", "q_rank"), when="q_rank"),
        TensorRule(ATTENTION + "kv_a_proj_with_mqa", "blk.{layer}.attn_kv_a_mqa", ("kv_rank+rope_dims", "hidden")),
        TensorRule(ATTENTION + "kv_a_layernorm", "blk.{layer}.attn_kv_a_norm", ("kv_rank",)),
        TensorRule(ATTENTION + "kv_b_proj", "blk.{layer}.attn_k_b", ("heads*nope+heads*value", "kv_rank"), KEY_PART),
        TensorRule(ATTENTION + "kv_b_proj", "blk.{layer}.attn_v_b", ("heads*nope+heads*value", "kv_rank"), VALUE_PART),
        TensorRule(ATTENTION + "o_proj", "blk.{layer}.attn_output", ("hidden", "heads*value")),
    )
    + mixture.DENSE_MLP
    + mixture.routed(),
    ignored_if=(("lm_head.weight", "tied"),),
    skip_layers_beyond=True,  # heads that predict further tokens
    relative=lambda config: "deepseek-ocr" if config.get("use_mla") is False else None,
    vocab=VocabHints("deepseek2"),
)  # fmt: skip

# A small one without experts.
YOUTU = DEEPSEEK2.derive(
    "youtu",
    hf_architectures=("YoutuForCausalLM", "YoutuVLForConditionalGeneration"),
    model_types=("youtu",),
    vocab=VocabHints("deepseek2", pre=("youtu", "kanana2")),
)

# GLM-4.7-Flash: no router function in the file, llama.cpp guesses it.
GLM4_MOE_LITE = DEEPSEEK2.derive(
    "glm4-moe-lite",
    hf_architectures=("Glm4MoeLiteForCausalLM",),
    model_types=("glm4_moe_lite",),
    facts={
        **nextn.FACTS,
        "guessed": lambda facts: facts.layers not in (47, 48) or facts.vocab != 154880,
    },
    remarks=(("guessed", "llama.cpp routes by sigmoid in the released size only, by softmax in this one"),),
    metadata=DEEPSEEK2.metadata + nextn.METADATA,
    tensors=DEEPSEEK2.tensors + nextn.TENSORS,
    skip_layers_beyond=False,
    relative=None,
    may_lack="predicts_further",
    vocab=VocabHints("deepseek2", pre=("glm4",), fallbacks=glm4.TOKENS),
)

INDEXER = "layers.{layer}.self_attn.indexer."
DEEPSEEK32 = GLM4_MOE_LITE.derive(
    "deepseek-v3.2",
    remarks=(),
    gguf_arch="deepseek32",
    harmless=("topk_method", "num_nextn_predict_layers", "mscale", "layer_types", "mlp_layer_types"),
    hf_architectures=("DeepseekV32ForCausalLM",),
    model_types=("deepseek_v32",),
    facts={
        "indexer_heads": count("index_n_heads", most=decoder.MOST_HEADS),
        "indexer_key": count("index_head_dim", most=decoder.MOST_WIDTH),
        "indexer_top": count("index_topk"),
        "indexer_types": None,
        "indexes": indexes,
    },
    metadata=(
        *GLM4_MOE_LITE.metadata,
        Entry("attention.indexer.head_count", "u32", "indexer_heads"),
        Entry("attention.indexer.key_length", "u32", "indexer_key"),
        Entry("attention.indexer.top_k", "u32", "indexer_top"),
    ),
    vocab=DEEPSEEK2.vocab,
    tensors=(
        *GLM4_MOE_LITE.tensors,
        TensorRule(
            INDEXER + "wq_b", "blk.{layer}.indexer.attn_q_b", ("indexer_heads*indexer_key", "q_rank"), layers="indexes"
        ),
        TensorRule(INDEXER + "wk", "blk.{layer}.indexer.attn_k", ("indexer_key", "hidden"), layers="indexes"),
        TensorRule(INDEXER + "k_norm", "blk.{layer}.indexer.k_norm", ("indexer_key",), layers="indexes"),
        TensorRule(INDEXER + "weights_proj", "blk.{layer}.indexer.proj", ("indexer_heads", "hidden"), layers="indexes"),
    ),
)

# Layers that are not "full" take the choice of the full one before them, and have no indexer.
GLM_MOE_DSA = DEEPSEEK32.derive(
    "glm-moe-dsa",
    gguf_arch="glm-dsa",
    hf_architectures=("GlmMoeDsaForCausalLM",),
    model_types=("glm_moe_dsa",),
    facts={"indexer_types": full_indexers, "rope_dims": glm_rope_dims},
    vocab=GLM4_MOE_LITE.vocab,
    metadata=(*DEEPSEEK32.metadata, Entry("attention.indexer.types", "booleans", "indexer_types")),
)

DEEPSEEK = LLAMA.derive(
    "deepseek",
    gguf_arch="deepseek",
    hf_architectures=("DeepseekForCausalLM",),
    model_types=("deepseek",),
    facts={**mixture.FACTS, "key_length": decoder.given_head_dim, "weights_scale": 1.0, "scaling_type": "none"},
    metadata=decoder.METADATA
    + mixture.COUNTS
    + decoder.ROPE_DIMS
    + mixture.LEADING
    + decoder.VOCAB_SIZE
    + mixture.WIDTH
    + mixture.WEIGHTS[:1]
    + mixture.SHARED,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PERMUTED_PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(bias=None),
    extras=(),
    vocab=VocabHints("deepseek"),
    vocab_for=None,
)

FAMILIES = (DEEPSEEK2, YOUTU, GLM4_MOE_LITE, DEEPSEEK32, GLM_MOE_DSA, DEEPSEEK)
