#!/usr/bin/env python3
"""Write docs/models.md: every model that `quantcli convert` reads, by what people call it, and which of them it runs.

    python scripts/models_page.py            # rewrite docs/models.md
    python scripts/models_page.py --check    # exit status 1 if it is not up to date

A family that stands in no group of ``GROUPS`` is listed under its own name at the end.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantcli import architectures, families
from quantcli.families.declaration import Family
from quantcli.families.projectors import catalogue as projectors
from quantcli.runner import settings
from quantcli.vocab.kinds import READERS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
DIFFERENCES = ROOT / "tests" / "families" / "differences.tsv"

#: group -> family -> what people call its models
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Llama": {
        "llama": "Llama 1 to 3.3, and what is built like it: Yi, SmolLM, DeepSeek distills, Vicuna, LLaVA's text part",
        "llama4": "Llama 4 Scout, Maverick",
        "llama-bidirectional": "Llama embedding models (NV-Embed and its like)",
    },
    "Mistral": {
        "mistral": "Mistral 7B, Nemo, Small 2, Zephyr, Pixtral's text part",
        "mixtral": "Mixtral 8x7B, 8x22B",
        "mistral3": "Mistral Small 3.x, Ministral 3, Devstral, Magistral",
    },
    "Qwen": {
        "qwen2": "Qwen 2, 2.5, QwQ, Qwen 2 Audio's text part",
        "qwen2-moe": "Qwen 1.5 MoE, Qwen 2 57B",
        "qwen2-vl": "Qwen 2 VL, 2.5 VL, 2.5 Omni (text part)",
        "qwen3": "Qwen 3, Qwen 3 Embedding",
        "qwen3-reranker": "Qwen 3 Reranker",
        "qwen3-moe": "Qwen 3 30B-A3B, 235B-A22B, Qwen 3 Coder",
        "qwen3-vl": "Qwen 3 VL (text part)",
        "qwen3-vl-moe": "Qwen 3 VL 30B-A3B, 235B-A22B (text part)",
        "qwen3-omni-moe": "Qwen 3 Omni (text part)",
        "qwen3-next": "Qwen 3 Next, Qwen 3 Coder Next",
        "qwen3.5": "Qwen 3.5 (text part)",
        "qwen3.5-moe": "Qwen 3.5 with experts (text part)",
        "kormo": "KORMo",
        "rnd1": "RND1 (diffusion)",
        "dream": "Dream (diffusion)",
    },
    "Gemma": {
        "gemma": "Gemma 1, CodeGemma",
        "gemma2": "Gemma 2",
        "gemma3": "Gemma 3 (text part)",
        "gemma3n": "Gemma 3n (text part)",
        "gemma4": "Gemma 4 (text part)",
        "gemma4-unified": "Gemma 4 in one stack (text part)",
        "embeddinggemma": "EmbeddingGemma",
    },
    "DeepSeek, Kimi": {
        "deepseek": "DeepSeek MoE 16B",
        "deepseek2": "DeepSeek V2, V3, V3.1, R1, Kimi K2, Moonlight",
        "deepseek-v3.2": "DeepSeek V3.2",
        "deepseek-ocr": "DeepSeek-OCR (text part)",
        "kimi-linear": "Kimi Linear",
        "dots1": "dots.llm1",
        "youtu": "Youtu LLM",
    },
    "GLM": {
        "chatglm": "ChatGLM 3, GLM-4 9B",
        "glm": "GLM-4 9B (transformers' class), GLM Edge",
        "glm4": "GLM-4 0414, GLM-Z1",
        "glm4v": "GLM-4.1V (text part)",
        "glm-ocr": "GLM-OCR (text part)",
        "glm4-moe": "GLM-4.5, 4.6, Air, 4.5V (text part)",
        "glm4-moe-lite": "GLM-4.7 Flash",
        "glm-moe-dsa": "GLM-5",
        "solar-open": "Solar Open",
    },
    "Phi": {
        "phi2": "Phi 1, 1.5, 2",
        "phi3": "Phi 3, 3.5, Phi 4, Phi 4 mini",
        "phi-moe": "Phi 3.5 MoE, Phi mini MoE",
    },
    "OpenAI": {"gpt-oss": "gpt-oss 20B, 120B", "gpt2": "GPT-2, DistilGPT2"},
    "IBM": {
        "granite": "Granite 3",
        "granite-moe": "Granite 3 MoE",
        "granite-4": "Granite 4 micro",
        "granite-4-moe": "Granite 4 with experts, without a scan",
        "granite-4-h": "Granite 4 H",
        "granite-swa": "Granite with windows",
        "granite-moe-swa": "Granite with windows and experts",
        "bamba": "Bamba",
    },
    "NVIDIA": {
        "nemotron": "Nemotron 4, Minitron",
        "nemotron-nas": "Llama Nemotron Super, Ultra",
        "nemotron-h": "Nemotron H, Nemotron Nano 2",
        "nemotron-h-moe": "Nemotron 3 Nano, Super",
        "deci": "DeciLM",
    },
    "Liquid": {"lfm2": "LFM2", "lfm2-moe": "LFM2 8B-A1B", "lfm2-bidirectional": "LFM2 embedding models"},
    "TII": {"falcon": "Falcon 7B, 40B", "falcon-h1": "Falcon H1"},
    "Ai2": {"olmo": "OLMo", "olmo2": "OLMo 2", "olmo3": "OLMo 3", "olmoe": "OLMoE"},
    "Cohere": {
        "cohere": "Command R, R+, Aya",
        "cohere2": "Command R7B, Command A",
        "cohere2-moe": "Command with experts",
    },
    "Tencent, Baidu, MiniMax, StepFun, Xiaomi, ByteDance": {
        "hunyuan-dense": "Hunyuan dense",
        "hunyuan-moe": "Hunyuan A13B",
        "hy-v3": "Hunyuan 3",
        "ernie4.5": "ERNIE 4.5 0.3B",
        "ernie4.5-moe": "ERNIE 4.5 21B-A3B, 300B",
        "paddleocr": "PaddleOCR-VL (text part)",
        "minimax-m2": "MiniMax M2",
        "step3.5": "Step 3.5 Flash, Step 3.7 Flash (text part)",
        "mimo-v2": "MiMo V2 Flash",
        "seed-oss": "Seed OSS",
        "bailing-moe": "Ling, Ring (first)",
        "bailing-moe-v2": "Ling 2, Ring 2",
        "llada": "LLaDA (diffusion)",
        "llada-moe": "LLaDA MoE (diffusion)",
    },
    "LG, Upstage, Naver and other Korean models": {
        "exaone": "EXAONE 3, 3.5",
        "exaone4": "EXAONE 4",
        "exaone4.5": "EXAONE 4.5 (text part)",
        "exaone-moe": "EXAONE with experts",
    },
    "InternLM, MiniCPM, Baichuan and other Chinese models": {
        "internlm2": "InternLM 2, 2.5",
        "internlm3": "InternLM 3",
        "minicpm": "MiniCPM 1, 2, 4",
        "minicpm3": "MiniCPM 3",
        "minicpm-v-4.6": "MiniCPM-V 4.6 (text part)",
        "baichuan": "Baichuan 2",
        "xverse": "XVERSE",
        "orion": "Orion",
        "plm": "PLM",
        "smallthinker": "SmallThinker",
        "pangu-embedded": "openPangu Embedded",
    },
    "State-space and recurrent models": {
        "mamba": "Mamba, Falcon Mamba",
        "mamba2": "Mamba 2",
        "jamba": "Jamba",
        "rwkv6": "RWKV 6",
        "rwkv7": "RWKV 7",
        "plamo2": "PLaMo 2",
        "plamo3": "PLaMo 3",
    },
    "Encoders: embeddings and rerankers": {
        "bert": "BERT, BGE, E5, GTE, mixedbread, BERT rerankers",
        "distilbert": "DistilBERT",
        "roberta": "RoBERTa",
        "xlm-roberta": "XLM-RoBERTa, BGE M3, multilingual E5, BGE Reranker v2",
        "jina-bert-v2": "Jina embeddings v2",
        "nomic-bert": "Nomic Embed v1, v1.5",
        "nomic-bert-moe": "Nomic Embed v2",
        "modern-bert": "ModernBERT",
        "neobert": "NeoBERT",
        "eurobert": "EuroBERT, Jina embeddings v5",
    },
    "Encoder-decoders": {"t5": "T5, Flan-T5, mT5, UMT5", "t5-encoder": "T5 encoders"},
    "Code": {
        "starcoder2": "StarCoder 2",
        "gpt-bigcode": "StarCoder, SantaCoder",
        "codeshell": "CodeShell",
        "refact": "Refact",
        "mellum": "Mellum 2",
        "laguna": "Laguna",
        "maincoder": "Maincoder",
    },
    "Others": {
        "afmoe": "Arcee Trinity",
        "apertus": "Apertus",
        "arcee": "Arcee AFM",
        "bitnet": "BitNet b1.58",
        "bloom": "BLOOM, BLOOMZ",
        "dbrx": "DBRX",
        "gpt-neox": "GPT-NeoX, Pythia, Dolly",
        "grok": "Grok 1, 2",
        "jais": "Jais",
        "jais2": "Jais 2",
        "janus": "Janus (text part)",
        "sarashina2-vision": "Sarashina 2 Vision (text part)",
        "maple": "Maple",
        "mpt": "MPT",
        "openelm": "OpenELM",
        "sarvam-moe": "Sarvam",
        "smollm3": "SmolLM 3",
        "spark2.5": "Spark X2.5",
        "stablelm": "StableLM, StableLM 2",
    },
}

#: what a row of differences.tsv says, by its kind, or by kind and what
KINDS: Mapping[str, str] = {
    "entry": "`{}`",
    "tensor": "tensors `blk.N{}`",
    "ids": "ids of texts with `{}`",
    "logits": "logits: within {} of their spread",
    "logits other": "logits: as llama.cpp computes them",
    "logits scaled": "logits: as llama.cpp scales them",
}

OTHERWISE = """\
## Where quantcli differs from the oracles

Every family is compared with a tiny checkpoint that llama.cpp's converter converted: names, shapes, types, bytes and
metadata are equal, token ids are those of the tokenizers library, logits differ by less than 1e-4 of their spread. What
differs is listed here (`tests/families/differences.tsv`, which the tests read).
"""

BAR = "\\|"  # in a cell of a table

HEAD = """\
# Models

`quantcli convert` reads these checkpoints. *Runs* means that `generate`, `perplexity`, `compare` and `imatrix` (`embed`
for models that see both directions) compute them, from a checkpoint and from a GGUF file of any program; the others are
converted only, and `quantcli check DIR` says why. GGUF files are a source of `convert` whatever their architecture.

Class names are those of `architectures` in config.json. Base classes (`...Model`) and wrappers with a vision or audio
part are read as well, whatever stands before the names of their tensors; what is left out is counted. A family without
a class is told by its settings or its name. `--architecture NAME` reads a checkpoint as one of them.

This page is made by `python scripts/models_page.py`.
"""


def runs(family: Family) -> str:
    """What quantcli does with a converted model."""
    graph = architectures.find(family.gguf_arch).graph
    lacking = [what for flag, what in getattr(settings, "LACKING", {}).items() if graph and getattr(graph, flag)]
    if graph is None or lacking:
        return f"converts only ({lacking[0]})" if lacking else "converts only"
    return "runs" if graph.causal else "runs (embed)"


def row(family: Family, spoken: str) -> str:
    classes = ", ".join(f"`{name}`" for name in sorted(family.hf_architectures, key=str.lower)) or "(by its settings)"
    return f"| {spoken} | {classes} | {family.gguf_arch} | {runs(family)} |"


def table(members: Sequence[tuple[Family, str]]) -> str:
    lines = ["| models | classes | GGUF architecture | quantcli |", "|---|---|---|---|"]
    return "\n".join([*lines, *(row(family, spoken) for family, spoken in members)])


def render() -> str:
    """The whole page."""
    known = families.registry()
    placed = {name for group in GROUPS.values() for name in group}
    groups = {title: [(known[name], spoken) for name, spoken in group.items()] for title, group in GROUPS.items()}
    groups["Others"] += [(family, name) for name, family in sorted(known.items()) if name not in placed]
    classes = {name for family in known.values() for name in family.hf_architectures}
    running = sum(runs(family).startswith("runs") for family in known.values())
    count = f"{len(classes)} classes in {len(known)} families; {running} families run.\n"
    parts = [HEAD, count, *(f"## {title}\n\n{table(members)}\n" for title, members in groups.items())]
    return "\n".join([*parts, vision(), vocabularies(), known_differences()])


def vision() -> str:
    """Projectors, which are written beside the language model."""
    names = sorted({name for one in projectors.registry().values() for name in one.hf_architectures}, key=str.lower)
    listed = ", ".join(f"`{name}`" for name in names)
    return f"## Vision and audio\n\n`convert --mmproj TYPE` writes the projector of: {listed}.\n"


def vocabularies() -> str:
    """Kinds of tokenizers."""
    kinds = ", ".join(f"`{name}`" for name in READERS)
    return (
        "## Tokenizers\n\n"
        "Read from tokenizer.json, SentencePiece files, vocab.json with merges.txt, tekken.json, tiktoken's ranks\n"
        "(Qwen 1, Kimi K2, Hunyuan, GLM-4: merges are rebuilt, no code of the checkpoint runs), RWKV's list of words\n"
        f"and PLaMo 2's tokenizer.jsonl, and written as {kinds}.\n"
        "Byte-level pre-tokenizers are recognised by their structure.\n"
    )


def known_differences() -> str:
    """What differs from the oracles, and why."""
    with DIFFERENCES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    lines = [
        f"| {name} | {(KINDS.get(f'{kind} {what}') or KINDS[kind]).format(what.replace('|', BAR))} | {reason} |"
        for name, kind, what, reason in sorted(rows)
    ]
    return "\n".join([OTHERWISE, "| checkpoint | what differs | why |", "|---|---|---|", *lines, ""])


def main() -> int:
    wanted = render()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
