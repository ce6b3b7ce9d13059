#!/usr/bin/env python3
"""Predicted cycles of the runner's hot loops on arm64 processors that are not here, beside llama.cpp's: llvm-mca.

    python scripts/predict_arm64.py [--peer FOLDER/ggml] [--cpus apple-m1,neoverse-n1] [--markdown docs/arm64.md]

The sources are compiled to assembly by an arm64 gcc (ARM64_CC, default aarch64-linux-gnu-gcc) with the dot product
instructions, the innermost loop of each function with the most of them is cut out, and llvm-mca (Debian: llvm)
simulates a hundred iterations on its model of each processor. --peer: llama.cpp's folder `ggml`, whose dot products
are compiled by the same compiler with the same instructions. Predictions: caches, memory and what surrounds the loop
play no part, and a model is not the processor. `quantcli bench` measures."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPUS = "apple-m1,neoverse-n1,neoverse-n2"
ITERATIONS = 100
FLAGS = ["-O3", "-march=armv8.2-a+dotprod+fp16", "-S", "-o", "-"]
#: function -> what its loop does
OURS = {
    "products_narrow": "prompts, codes of 8 bits: 16 rows x 4 tokens",
    "products_wide": "prompts, codes of 16 bits",
    "dot_any": "one token: a sub-block",
}
PEER = {
    "ggml_vec_dot_q8_0_q8_0": "one token (and prompts that are not repacked), Q8_0",
    "ggml_vec_dot_q4_0_q8_0": "the same, Q4_0",
    "ggml_vec_dot_q4_K_q8_K": "the same, Q4_K",
    "ggml_vec_dot_q6_K_q8_K": "the same, Q6_K",
    "ggml_vec_dot_iq4_xs_q8_K": "the same, IQ4_XS",
    "ggml_vec_dot_iq3_s_q8_K": "the same, IQ3_S",
}
#: multiply-adds of one instruction, by its name and the arrangement of its result
PRODUCTS = {"sdot": {"4s": 16}, "udot": {"4s": 16}, "smlal": {"4s": 4}, "smlal2": {"4s": 4}, "fmla": {"4s": 4}}


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions, and the multiply-adds of an iteration."""

    function: str
    instructions: list[str]
    products: int


def functions(assembly: str) -> dict[str, list[str]]:
    """The lines of every function."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in assembly.splitlines():
        label = re.match(r"([A-Za-z_]\w*):", line)
        if label:
            current = found.setdefault(label[1], [])
        elif line.strip().startswith(".size"):
            current = None
        elif current is not None:
            current.append(line.split("//")[0].rstrip())
    return found


def products(instruction: str) -> int:
    """Multiply-adds of an instruction."""
    words = instruction.split()
    arrangement = re.search(r"\.(\d+[bhsd])", words[1]) if len(words) > 1 else None
    return PRODUCTS.get(words[0], {}).get(arrangement[1] if arrangement else "", 0)


def hot_loop(name: str, lines: list[str]) -> Loop | None:
    """The innermost loop with the most multiply-adds per instruction; None: there is none."""
    labels: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        label = re.match(r"(\.L\w+):", line)
        if label:
            labels[label[1]] = number
        branch = re.match(r"\s+(?:b\w*(?:\.\w+)?|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)$", line)
        if branch and branch[1] in labels:
            spans.append((labels[branch[1]], number))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    loops = []
    for first, last in inner:
        body = [line.strip() for line in lines[first : last + 1] if re.match(r"\s+[a-z]", line)]
        count = sum(map(products, body))
        if count:
            loops.append(Loop(name, body[:-1], count))
    return max(loops, key=lambda loop: (loop.products, -len(loop.instructions)), default=None)


def predict(loop: Loop, cpu: str) -> tuple[float, str]:
    """Cycles of an iteration, and what limits them."""
    text = "\n".join(loop.instructions) + "\n"
    command = ["llvm-mca", "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", "-mattr=+dotprod,+fullfp16"]
    command += [f"-iterations={ITERATIONS}", "-bottleneck-analysis", "-instruction-info=0"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if cycles is None:
        sys.exit(f"llvm-mca did not understand the loop of {loop.function} for {cpu}:\n{done.stderr[:2000]}")
    pressure = {
        kind: float(share)
        for kind, share in re.findall(
            r"(Resource Pressure|Register Dependencies|Memory Dependencies)\s+\[ ([\d.]+)% \]", done.stdout
        )
    }
    most = max(pressure, key=pressure.__getitem__, default="")
    return int(cycles[1]) / ITERATIONS, most.lower() if pressure.get(most) else "the front end"


def compiled(source: Path, options: list[str]) -> dict[str, list[str]]:
    """A source as functions in assembly."""
    compiler = shlex.split(os.environ.get("ARM64_CC", "aarch64-linux-gnu-gcc"))
    for tool, package in ((compiler[0], "gcc-aarch64-linux-gnu"), ("llvm-mca", "llvm")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} was not found: on Debian, `apt-get install {package}`")
    done = subprocess.run([*compiler, *options, *FLAGS, str(source)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source} does not compile for arm64:\n{done.stderr[:2000]}")
    return functions(done.stdout)


def table(title: str, found: dict[str, list[str]], wanted: dict[str, str], cpus: list[str]) -> list[str]:
    """A row per function: multiply-adds per cycle on every processor."""
    lines = [f"| {title} | loop | instructions | multiply-adds | {' | '.join(cpus)} |", "|---" * (4 + len(cpus)) + "|"]
    for name, what in wanted.items():
        loop = hot_loop(name, found.get(name, []))
        if loop is None:
            print(f"{name}: no loop with products was found", file=sys.stderr)
            continue
        cells = []
        for cpu in cpus:
            cycles, limit = predict(loop, cpu)
            cells.append(f"{loop.products / cycles:.1f} ({cycles:.1f} cycles; {limit})")
        lines.append(f"| `{name}` | {what} | {len(loop.instructions)} | {loop.products} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="llama.cpp's folder `ggml`, to compare with")
    parser.add_argument("--cpus", type=lambda text: text.split(","), default=CPUS.split(","), help=f"default: {CPUS}")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    options = parser.parse_args()
    ours = compiled(
        ROOT / "csrc" / "runner" / "backend_dotprod.c", ["-std=c11", "-ffp-contract=off", "-fno-math-errno"]
    )
    lines = table("ours", ours, OURS, options.cpus)
    if options.peer:
        folder = options.peer / "src"
        include = [f"-I{path}" for path in (options.peer / "include", folder, folder / "ggml-cpu")]
        defines = ["-DNDEBUG", '-DGGML_VERSION="x"', '-DGGML_COMMIT="x"', "-std=gnu11"]
        peer = compiled(folder / "ggml-cpu" / "arch" / "arm" / "quants.c", [*include, *defines])
        lines += ["", *table("llama.cpp", peer, PEER, options.cpus)]
    print("\n".join(lines))
    if options.markdown:
        text = options.markdown.read_text(encoding="utf-8")
        start, end = "<!-- predicted -->\n", "<!-- /predicted -->"
        before, after = text.split(start)[0], text.split(end)[1]
        options.markdown.write_text("\n".join([before + start.strip(), *lines, end]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
