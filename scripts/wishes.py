#!/usr/bin/env python3
"""Try what people who make GGUF files ask for: every wish with its commands and what they print (docs/wishes.md).

    python scripts/wishes.py FOLDER [--output docs/wishes.md] [--only N]...

FOLDER holds recorded checkpoints: arch/, arch-new/, packed/, lora/, mmproj/ with a checkpoint a folder. Every command is
run anew, in the order of the page, in one folder where `tiny` is the bundled checkpoint.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SHOWN, WIDE = 9, 150  # lines of an output that the page shows, characters of a line
TIMEOUT = 900


class Wish(NamedTuple):
    """``answered``: yes, partly or no, with ``remark`` where that needs a word."""

    text: str
    commands: tuple[str, ...]
    answered: str = "yes"
    remark: str = ""


WISHES = (
    Wish("quantized output straight from a checkpoint", ("quantcli convert tiny -t Q4_K_M,Q8_0 -o out --checksums SUMS",)),
    Wish("pre-tokenizers that are recognised", ("quantcli inspect qwen3 | grep tokenizer.ggml.pre",)),
    Wish(
        "memory independent of the model's size",
        ("python -c 'import resource as r, subprocess as s; s.run([\"quantcli\", \"convert\", \"tiny\", \"-t\", \"Q4_K_M\", "
         "\"-o\", \"m.gguf\", \"-q\"]); print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss // 1024, \"MiB\")'",),
        remark="2 GB in 80 MiB, 8 GB in 90: docs/figures.md, `python scripts/bench_convert.py`",
    ),
    Wish("this year's architectures", ("quantcli convert qwen3.5 -t Q8_0 -o q.gguf", "quantcli convert gemma4 -t Q8_0 -o g.gguf")),
    Wish(
        "FP8, NVFP4, compressed-tensors sources",
        ("quantcli convert llama-fp8-block -t Q8_0 -o fp8.gguf", "quantcli convert llama-nvfp4-ct -t Q8_0 -o nv.gguf",
         "quantcli convert llama-ct-w4a16-sym -t Q8_0 -o ct.gguf"),
    ),
    Wish(
        "AWQ, GPTQ, bitsandbytes sources",
        ("quantcli convert llama-awq -t Q8_0 -o awq.gguf", "quantcli convert llama-gptq -t Q8_0 -o gptq.gguf",
         "quantcli convert llama-bnb-nf4 -t Q8_0 -o bnb.gguf"),
    ),
    Wish("installs by itself, no torch", ("quantcli --version", "python -c 'import importlib.util as u; print(\"torch:\", u.find_spec(\"torch\"))'"),
         remark="`make wheels` builds wheels that need no compiler and no clone"),
    Wish("parallel, fast", ("quantcli convert tiny -t Q6_K,Q5_K_M,Q4_K_M -o fast/ --threads 2",),
         remark="8.8 times llama-quantize: docs/figures.md"),
    Wish("tokenizers equal to the source's, checked", ("quantcli check qwen3",)),
    Wish("chat templates equal to the source's, checked", ("quantcli check smollm3",)),
    Wish("the projector in the same run", ("quantcli convert qwen2-vl-vision -t Q8_0 --mmproj F16 -o vision/",)),
    Wish("LoRA adapters", ("quantcli convert llama-attn --lora-base llama-attn/base -o lora.gguf",)),
    Wish(
        "a target size or bits per weight, the best mix",
        ("quantcli calibrate tiny -o stats --tokens 8192 --sampled-tokens 1024 -q",
         "quantcli plan tiny --target-bpw 4.5 --statistics stats -o plan.txt"),
    ),
    Wish("types per tensor by pattern or file", (
        "quantcli convert tiny -t Q4_K_M --tensor-type 'attn_v=q8_0' --dry-run | tail -2",
        "quantcli convert tiny -t Q4_K_M --tensor-type-file plan.txt --dry-run | tail -2")),
    Wish("mixes that know latent attention, shared experts, hybrids", (
        "quantcli convert deepseek-v3 -t Q4_K_M --dry-run | tail -3", "quantcli convert qwen3-next -t Q4_K_M --dry-run | tail -3")),
    Wish("fallbacks said, never silent", ("quantcli convert llama3 -t Q4_K_M --dry-run | tail -1",)),
    Wish("no NaN in blocks", ("quantcli verify out/tiny-Q4_K_M.gguf",),
         remark="`convert` refuses NaN and infinite weights, naming tensor and row"),
    Wish("fast codebook types", (
        "quantcli imatrix tiny -o imatrix.gguf -c 128 --chunks 8 -q", "quantcli convert tiny -t IQ3_S,IQ2_XS --imatrix imatrix.gguf -o iq/"),
         remark="21 times ggml's speed and more: docs/bars.md"),
    Wish("a dry run with the exact size, and time, disk, total", ("quantcli convert tiny -t Q4_K_M,Q8_0 --dry-run",),
         remark="sizes to the byte; time, memory and disk as estimates"),
    Wish("safe writing", ("quantcli convert tiny -t Q4_K_M -o out/", "quantcli convert tiny -t Q8_0 -o tiny/model.safetensors")),
    Wish("resume, shards, only what is missing", (
        "quantcli convert tiny -t Q8_0 --split-max-size 1M -o shards/", "quantcli convert tiny -t Q8_0 --split-max-size 1M --part 1/2 -o parts/", "quantcli convert tiny -t Q8_0 --split-max-size 1M --part 2/2 -o parts/", "quantcli assemble parts/"),
         remark="a part that is there is not made again; `quantcli release` continues where it stopped: docs/release.md"),
    Wish("reproducible bytes, provable origin", (
        "quantcli convert tiny -t Q4_K_M -o again.gguf --threads 1 -q && sha256sum again.gguf out/tiny-Q4_K_M.gguf",
        "quantcli inspect again.gguf | grep quantcli")),
    Wish("QAT checkpoints land on their grid", ("quantcli convert llama-gptq -t Q4_0 -o grid.gguf",)),
    Wish("importance for experts that see few tokens, resume", ("quantcli imatrix mixtral -o moe.gguf -c 64 --chunks 4",
        "quantcli imatrix mixtral -o moe.gguf -c 64 --chunks 8 --resume")),
    Wish("practical KL divergence: percentiles, JSON", (
        "quantcli compare tiny out/*.gguf -f text.txt -c 128 --chunks 4",
        "quantcli compare tiny out/tiny-Q8_0.gguf -f text.txt -c 128 --chunks 4 --json -q | cut -c 1-140")),
    Wish("heads for further tokens kept, weighted, checked", ("quantcli convert glm4-moe -t Q2_K --allow-no-imatrix --dry-run | grep nextn",
        "quantcli convert glm4-moe -t Q8_0 -o heads.gguf -q && quantcli verify heads.gguf")),
    Wish("files like the best published ones for one's own fine-tune", ("quantcli plan tiny --like Q4_K_M --statistics stats -o like.txt",
        "quantcli convert tiny -t Q4_K_M --tensor-type-file like.txt -o like.gguf"), remark="with `--quality best` beyond them: docs/fidelity.md"),
    Wish("an exact fit to a memory budget", ("quantcli convert tiny --target-size 1600K --statistics stats -o fit.gguf",)),
    Wish("tensors grafted between files without requantizing", (
        "quantcli graft out/tiny-Q4_K_M.gguf out/tiny-Q8_0.gguf --tensors '^token_embd' -o grafted.gguf",)),
    Wish("rows padded so that k- and IQ types fit", ("quantcli convert llama3 -t Q4_K_M --transform pad -o padded.gguf",)),
    Wish("hard-coded minimum types switched off; another file's layout reused", (
        "quantcli convert tiny -t Q4_K_M --pure --dry-run | tail -1",
        "quantcli convert tiny -t Q5_K_M --tensor-type 'attn_v=q3_k' -o layout.gguf -q",
        "quantcli convert tiny -t Q4_K_M --tensor-type-file layout.gguf -o same-layout.gguf -q",
        "quantcli diff same-layout.gguf layout.gguf 2>&1 | tail -1")),
    Wish("calibration and figures in one's own language, the tail", (
        "quantcli imatrix tiny -f text.txt -o mine.gguf -c 128 --chunks 4", "quantcli compare tiny out/tiny-Q4_K_M.gguf -f text.txt -c 128 --chunks 4 -q | cut -c 1-200")),
    Wish("judged by long texts, too", ("quantcli perplexity out/tiny-Q8_0.gguf -f text.txt -c 1024 --chunks 2",)),
    Wish("a plan that knows which types are slow on a CPU", ("quantcli plan tiny --like Q4_K_M --statistics stats --candidates k",), "partly",
         "`--candidates k` leaves out the slow IQ types; the plan does not weigh speed"),
    Wish("low-precision sources passed through", ("quantcli convert llama-nvfp4-ct -t F16 -o through.gguf",)),
    Wish("an encoder for other Python tools", (
        "python -c 'import numpy, quantcli; print(quantcli.encode_blocks(numpy.ones((2, 256), numpy.float32), \"Q4_K\").shape)'",)),
    Wish("experts left out while converting", (), "no", "there is no option for it"),
    Wish("shard sizes under control", ("quantcli convert tiny -t Q8_0 --split-max-size 1500K -o sized/",)),
    Wish("per-layer and n-gram embedding tables with a type of their own", (
        "quantcli convert gemma4 -t Q4_K_M --tensor-type 'per_layer_token_embd=q8_0' --dry-run | grep per_layer_token",)),
    Wish("a repository's files rebuilt or deduplicated from recipes", ("quantcli reproduce out/tiny-Q4_K_M.gguf --source tiny",)),
)  # fmt: skip


def prepare(folder: Path, recorded: Path) -> dict[str, str]:
    """Links to checkpoints, a text, and `quantcli` on the PATH; returns the environment."""
    (folder / "tiny").symlink_to(ROOT / "examples" / "tiny")
    for room in ("arch", "arch-new", "packed", "lora"):
        for path in sorted((recorded / room).iterdir()):
            if path.is_dir() and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.resolve())
    text = (ROOT / "quantcli" / "data" / "calibration.txt").read_text(encoding="utf-8")
    for path in (recorded / "mmproj").iterdir():
        if path.is_dir():
            (folder / f"{path.name}-vision").symlink_to(path.resolve())
    (folder / "text.txt").write_text(text[:40_000], encoding="utf-8")
    programs = folder / ".programs"
    programs.mkdir()
    (programs / "quantcli").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quantcli "$@"\n')
    (programs / "quantcli").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def run(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """(exit code, what it printed, cut to what the page shows)."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=environment, timeout=TIMEOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if not re.search(r": \d+( %,| of) .* left$", line)]
    shown = [line[:WIDE] + (" ..." if len(line) > WIDE else "") for line in lines[:SHOWN]]
    return done.returncode, "\n".join(
        shown + ([f"... ({len(lines) - SHOWN} more lines)"] if len(lines) > SHOWN else [])
    )


def section(number: int, wish: Wish, folder: Path, environment: dict[str, str]) -> tuple[str, bool]:
    """A section of the page, and whether every command ended as it should."""
    lines, well = [f"## {number}. {wish.text}: {wish.answered}", ""], True
    if wish.remark:
        lines += [wish.remark[0].upper() + wish.remark[1:] + ".", ""]
    if wish.commands:
        lines.append("```")
        for command in wish.commands:
            began = time.monotonic()
            status, text = run(command, folder, environment)
            refusal = wish.text == "safe writing"  # there the error is the answer
            well = well and (status == 0) != refusal
            print(f"{number:2} [{status}] {time.monotonic() - began:5.1f} s  {command[:100]}", flush=True)
            lines += [f"$ {command}", *([text] if text else [])]
        lines += ["```", ""]
    return "\n".join(lines), well


def page(sections: dict[int, str]) -> str:
    """The whole page from its sections by number."""
    counts = {word: sum(wish.answered == word for wish in WISHES) for word in ("yes", "partly", "no")}
    head = (
        "# What people who make GGUF files ask for, tried\n\n"
        f"Forty wishes of public threads: {counts['yes']} answered, {counts['partly']} in part, {counts['no']} not. Every "
        "command was run, in this order, in one\nfolder; what it printed stands below it, long outputs cut. "
        f"`python scripts/wishes.py ../shared` ({time.strftime('%Y-%m-%d')}) writes this\npage; it needs the folder of "
        "recorded checkpoints.\n\n"
    )
    return head + "\n".join(sections[number] for number in sorted(sections))


def read_sections(path: Path) -> dict[int, str]:
    """The sections of a page by number; {} where there is none."""
    if not path.exists():
        return {}
    parts = re.split(r"^(?=## \d+\. )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {int(part[3:].split(".")[0]): part.rstrip("\n") + "\n" for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "wishes.md")
    parser.add_argument("--only", type=int, action="append", default=[], help="renew these sections of the page")
    arguments = parser.parse_args()
    sections, wrong = read_sections(arguments.output) if arguments.only else {}, []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        environment = prepare(folder, arguments.recorded)
        for number, wish in enumerate(WISHES, 1):
            if arguments.only and number not in arguments.only:
                continue
            text, well = section(number, wish, folder, environment)
            sections[number] = text.replace(str(folder), ".")
            wrong += [] if well else [number]
    if wrong:
        print(f"not as it should be: {wrong}")
    arguments.output.write_text(page(sections), encoding="utf-8")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
