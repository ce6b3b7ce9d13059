"""Qwen2 and Qwen3, dense and with experts. Their sliding window settings are not used by llama.cpp."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule, Variant
from quantcli.families.fields import count, flag
from quantcli.families.transforms import joined, rows
from quantcli.vocab import VocabHints

QWEN2 = Family(
    name="qwen2",
    gguf_arch="qwen2",
    hf_architectures=(
        "Qwen2ForCausalLM",
        "Qwen2AudioForConditionalGeneration",
        "AudioFlamingo3ForConditionalGeneration",
        "DotsOCRForCausalLM",
    ),
    model_types=("qwen2",),
    facts={**decoder.FACTS, "context": decoder.context(32768), "kv_heads": decoder.key_value_heads(32)},
    metadata=decoder.METADATA,
    tensors=decoder.TOP + decoder.PRE_NORMS + decoder.BIASED_PROJECTIONS + decoder.OUT_PROJECTION + decoder.GATED_MLP,
    vocab=VocabHints("qwen2"),
)

QWEN2_MOE = QWEN2.derive(
    "qwen2-moe",
    gguf_arch="qwen2moe",
    hf_architectures=("Qwen2MoeForCausalLM",),
    model_types=("qwen2_moe",),
    facts={
        "kv_heads": decoder.key_value_heads(16),
        **decoder.EXPERT_FACTS,
        "expert_ff": count("moe_intermediate_size", most=decoder.MOST_WIDTH),
        "shared_ff": count("shared_expert_intermediate_size", most=decoder.MOST_WIDTH),
    },
    metadata=decoder.METADATA
    + decoder.EXPERT_COUNTS
    + (
        Entry("expert_feed_forward_length", "u32", "expert_ff"),
        Entry("expert_shared_feed_forward_length", "u32", "shared_ff"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.BIASED_PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.router("mlp.gate")
    + decoder.experts("mlp.experts", *decoder.EXPERT_KINDS)
    + decoder.shared_experts("mlp.shared_expert")
    + (TensorRule("layers.{layer}.mlp.shared_expert_gate", "blk.{layer}.ffn_gate_inp_shexp", (1, "hidden")),),
)

QWEN3 = QWEN2.derive(
    "qwen3",
    gguf_arch="qwen3",
    hf_architectures=("Qwen3ForCausalLM", "StepVLForConditionalGeneration"),
    model_types=("qwen3",),
    facts={
        "head_dim": count("head_dim", default=128, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
    },
    tensors=decoder.TENSORS + decoder.HEAD_NORMS,
    variants=(Variant("qwen3-reranker", ("qwen3-reranker", "qwen3-vl-reranker")),),
)

# Answers "yes" or "no": these two rows of the head are all that is kept of it.
ANSWERS = joined(rows("yes_row", "yes_row+1"), rows("no_row", "no_row+1"))
UNKNOWN = "<|endoftext|>"  # of Qwen2's tokenizer
RERANK = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)

QWEN3_RERANKER = QWEN3.derive(
    "qwen3-reranker",
    hf_architectures=(),
    model_types=(),
    facts={
        "pooling": 4,  # ranks
        "labels": ("yes", "no"),
        "tied": flag("tie_word_embeddings", default=False),
        "untied": lambda facts: not facts.tied,
    },
    metadata=(*QWEN3.metadata, Entry("classifier.output_labels", "strings", "labels")),
    tensors=(
        TensorRule("embed_tokens", "cls.output", ("vocab", "hidden"), ANSWERS, bias="none", when="tied"),
        TensorRule("lm_head", "cls.output", ("vocab", "hidden"), ANSWERS, bias="none", when="untied"),
        *(replace(rule, when="tied") if rule.target == "output" else rule for rule in QWEN3.tensors),
    ),
    variants=(),
    templates={"rerank": RERANK},
    rows={"yes_row": ("yes", UNKNOWN), "no_row": ("no", UNKNOWN)},
)

QWEN3_MOE = QWEN3.derive(
    "qwen3-moe",
    gguf_arch="qwen3moe",
    hf_architectures=("Qwen3MoeForCausalLM",),
    model_types=("qwen3_moe",),
    variants=(),
    facts={
        "kv_heads": decoder.key_value_heads(4),
        "head_dim": decoder.head_dim,
        "key_length": decoder.given_head_dim,
        **decoder.EXPERT_FACTS,
        "expert_ff": count("moe_intermediate_size", most=decoder.MOST_WIDTH),
    },
    metadata=decoder.METADATA + decoder.EXPERT_COUNTS + (Entry("expert_feed_forward_length", "u32", "expert_ff"),),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.HEAD_NORMS
    + decoder.OUT_PROJECTION
    + decoder.router("mlp.gate")
    + decoder.experts("mlp.experts", *decoder.EXPERT_KINDS),
)

FAMILIES = (QWEN2, QWEN2_MOE, QWEN3, QWEN3_RERANKER, QWEN3_MOE)
