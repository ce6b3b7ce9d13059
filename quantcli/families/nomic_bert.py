"""Nomic's BERT: rotary positions, q/k/v in one matrix, a gated MLP, no biases."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.bert import BERT
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.transforms import shaped, transposed
from quantcli.vocab import VocabHints

LAYER = "encoder.layers.{layer}."
VECTOR = ("hidden",)
TRAINED = {8192: 2048, 2048: 512}  # positions that config.json claims -> those that were trained (llama.cpp's table)


def trained_context(facts: Facts) -> int:
    """How many positions were trained. Raises BadConfig."""
    claimed = facts.read(count("n_positions"))
    if claimed not in TRAINED or facts.read(count("max_trained_positions", default=2048)) != 2048:
        raise bad("n_positions", f"is {claimed}; 8192 and 2048 are known", "the model is newer than quantcli")
    return TRAINED[claimed]


TOP = (
    TensorRule("embeddings.word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
    TensorRule("embeddings.token_type_embeddings", "token_types", ("types", "hidden"), bias="none"),
    TensorRule("emb_ln", "token_embd_norm", VECTOR, bias="required"),
)
BODY = (
    TensorRule(LAYER + "attn.Wqkv", "blk.{layer}.attn_qkv", ("3*hidden", "hidden")),
    TensorRule(LAYER + "attn.out_proj", "blk.{layer}.attn_output", ("hidden", "hidden")),
    TensorRule(LAYER + "norm1", "blk.{layer}.attn_output_norm", VECTOR, bias="required"),
    TensorRule(LAYER + "norm2", "blk.{layer}.layer_output_norm", VECTOR, bias="required"),
)

NOMIC_BERT = BERT.derive(
    "nomic-bert",
    gguf_arch="nomic-bert",
    hf_architectures=("NomicBertModel",),
    model_types=("nomic_bert",),
    facts={"context": trained_context, "theta": real("rotary_emb_base", default=10000.0, least=1e-6)},
    metadata=(*BERT.metadata, decoder.ROPE[-1]),
    tensors=(
        *TOP,
        *BODY,
        TensorRule(LAYER + "mlp.fc11", "blk.{layer}.ffn_up", ("ff", "hidden"), bias="none"),
        TensorRule(LAYER + "mlp.fc12", "blk.{layer}.ffn_gate", ("ff", "hidden"), bias="none"),
        TensorRule(LAYER + "mlp.fc2", "blk.{layer}.ffn_down", ("hidden", "ff"), bias="none"),
    ),
    vocab=replace(BERT.vocab, architecture="nomic-bert"),
    relative=lambda config: "nomic-bert-moe" if config.get("moe_every_n_layers") else None,
    harmless=("causal", "dense_seq_output", "parallel_block", "rotary_*"),
)

# Experts in every n-th layer, each of two matrices, stacked below each other; their common bias is left out.
NOMIC_BERT_MOE = NOMIC_BERT.derive(
    "nomic-bert-moe",
    gguf_arch="nomic-bert-moe",
    hf_architectures=(),
    model_types=(),
    relative=None,
    harmless=(*NOMIC_BERT.harmless, "moe_normalize_expert_weights", "num_shared_experts", "ffn_div"),
    facts={
        "experts": count("num_local_experts", "num_experts", most=decoder.MOST_EXPERTS),
        "experts_used": count("moe_top_k", most=decoder.MOST_EXPERTS),
        "every": count("moe_every_n_layers", most=decoder.MOST_LAYERS),
        "routed": lambda facts: lambda layer: layer % facts.every == 1,
        "plain": lambda facts: lambda layer: layer % facts.every != 1,
    },
    metadata=(
        *NOMIC_BERT.metadata,
        *decoder.EXPERT_COUNTS,
        Entry("moe_every_n_layers", "u32", "every"),
    ),
    tensors=(
        *TOP,
        *BODY,
        TensorRule(LAYER + "mlp.fc1", "blk.{layer}.ffn_up", ("ff", "hidden"), layers="plain"),
        TensorRule(LAYER + "mlp.fc2", "blk.{layer}.ffn_down", ("hidden", "ff"), layers="plain"),
        TensorRule(LAYER + "mlp.router.layer", "blk.{layer}.ffn_gate_inp", ("experts", "hidden"), layers="routed"),
        TensorRule(
            LAYER + "mlp.experts.mlp.w1", "blk.{layer}.ffn_up_exps.weight", ("experts*ff", "hidden"),
            shaped("experts", "ff", "hidden"), exact=True, layers="routed",
        ),
        TensorRule(
            LAYER + "mlp.experts.mlp.w2", "blk.{layer}.ffn_down_exps.weight", ("experts*ff", "hidden"),
            shaped("experts", "ff", "hidden") | transposed(), exact=True, layers="routed",
        ),
    ),
    ignored=(*NOMIC_BERT.ignored, "*.mlp.experts.bias"),
    vocab=VocabHints("nomic-bert-moe"),
)  # fmt: skip

FAMILIES = (NOMIC_BERT, NOMIC_BERT_MOE)
