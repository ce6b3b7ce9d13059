"""Gemma 3n: four streams side by side (altup), a low-rank shortcut (laurel), embeddings for every layer."""

from __future__ import annotations

import math
from statistics import NormalDist

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.fields import count
from quantcli.families.gemma import GEMMA3, SOFT_CAPS
from quantcli.families.layer_inputs import FACTS, FOUR_NORMS, PER_LAYER, SHARED_KEYS, layer_rule
from quantcli.families.transforms import single

STREAMS = 4  # llama.cpp knows no other number
OTHERS = ("0", "1", "2")  # all streams but the first


def widths(facts: Facts) -> EachLayer:
    """The MLP's width of every layer."""
    found = facts.find("intermediate_size")
    found = [found] * facts.layers if isinstance(found, int) else found
    if not isinstance(found, list) or len(found) != facts.layers or not all(type(one) is int for one in found):
        raise bad("intermediate_size", f"is no list of {facts.layers} widths")
    return EachLayer(found)


def streams(facts: Facts) -> int:
    if facts.read(count("altup_num_inputs")) != STREAMS:
        raise bad("altup_num_inputs", f"is not {STREAMS}: the file has no place for another number")
    return STREAMS


def sparsity(facts: Facts) -> list[float]:
    """Standard deviations above the mean that an activation must exceed, by the share that is to be left out."""
    shares = decoder.layer_list(facts, "activation_sparsity_pattern", "shares")
    if not all(isinstance(share, (int, float)) and 0 <= share < 1 for share in shares):
        raise bad("activation_sparsity_pattern", "holds something that is no share")
    return [normal_quantile(share) if share else float("-inf") for share in shares]  # type: ignore[arg-type]


def normal_quantile(share: float) -> float:
    """Of the standard normal distribution, rounded at the steps where torch's float32 version rounds."""
    centred = single(2 * single(share) - 1)
    return single(single(NormalDist().inv_cdf((1 + centred) / 2) / math.sqrt(2)) * single(math.sqrt(2)))


GEMMA3N: Family = GEMMA3.derive(
    "gemma3n",
    harmless=(
        "hidden_activation",
        "altup_co*",
    ),
    gguf_arch="gemma3n",
    hf_architectures=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    model_types=("gemma3n_text",),
    facts={
        **FACTS,
        "ff": widths,
        "streams": streams,
        "active": count("altup_active_idx", default=0, least=0, most=STREAMS - 1),
        "per_layer": count("hidden_size_per_layer_input", default=256, most=decoder.MOST_WIDTH),
        "laurel": count("laurel_rank", default=64, most=decoder.MOST_WIDTH),
        "shared_layers": count("num_kv_shared_layers", default=15, least=0, most=decoder.MOST_LAYERS),
        "eps": decoder.rms_eps(1e-6),
        "window_pattern": decoder.window_pattern(5),
        "sparsity": sparsity,
    },
    metadata=(
        *(Entry("feed_forward_length", "i32s", "ff") if entry.fact == "ff" else entry for entry in decoder.SIZES),
        *decoder.ROPE,
        *decoder.LOCAL_ROPE,
        *decoder.RMS,
        *decoder.LENGTHS,
        *SOFT_CAPS[1:],
        *decoder.WINDOWS,
        Entry("altup.active_idx", "u32", "active"),
        Entry("altup.num_inputs", "u32", "streams"),
        Entry("embedding_length_per_layer_input", "u32", "per_layer"),
        Entry("attention.shared_kv_layers", "u32", "shared_layers"),
        Entry("activation_sparsity_scale", "f32s", "sparsity"),
    ),
    tensors=(
        *decoder.EMBEDDINGS,
        *decoder.FINAL_NORM,
        *PER_LAYER,
        TensorRule("altup_projections.{part}", "altup_proj", ("hidden", "hidden"), bias="none", parts=OTHERS),
        TensorRule(
            "altup_unembed_projections.{part}", "altup_unembd_proj", ("hidden", "hidden"), bias="none", parts=OTHERS
        ),
        *FOUR_NORMS,
        *SHARED_KEYS,
        layer_rule("self_attn.v_proj", "attn_v", "kv_heads*head_dim", "hidden", layers="keeps_keys"),
        *decoder.GATED_MLP,
        TensorRule(
            "layers.{layer}.altup.correct_output_scale",
            "blk.{layer}.altup_correct_scale.weight",
            ("hidden",),
            exact=True,
        ),
        layer_rule("altup.correction_coefs", "altup_correct_coef", "streams", "streams"),
        layer_rule("altup.modality_router", "altup_router", "streams", "hidden"),
        layer_rule("altup.prediction_coefs", "altup_predict_coef", "streams*streams", "streams"),
        layer_rule("altup.router_norm", "altup_router_norm", "hidden"),
        layer_rule("laurel.linear_left", "laurel_l", "laurel", "hidden"),
        layer_rule("laurel.linear_right", "laurel_r", "hidden", "laurel"),
        layer_rule("laurel.post_laurel_norm", "laurel_post_norm", "hidden"),
    ),
    cut_embeddings=True,
)

FAMILIES = (GEMMA3N,)
