#!/usr/bin/env python3
"""Both scale searches of every type, judged by KL divergence on three texts and block by block by weighted error.

    python scripts/bench_searches.py [--shared ../shared] [--types Q4_K Q6_K] [--chunks 40] [--threads 2]
                                     [--ggml FILE] [--output docs/searches.md] [--json FILE]

Every 2-D tensor of the blocks of models/mid gets one type, with mid-imatrix.gguf; embeddings and head are Q8_0. One
file per search: `--search ggml`, `--search best`, and for the codebook types (IQ1 to IQ3), whose bytes are never
ggml's, ggml's own bytes instead, where llama-cpp-python is installed or --ggml names libggml-base. The reference is
the BF16 file. --output rewrites what stands between the page's markers; what is around them is kept."""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import kernel_report
import objectives
from bench_kernels import find_ggml
from bench_quality import linear_tensors, reference
from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import compare, convert
from quantcli.evaluate.divergence import paired
from quantcli.ggml import kernels, tensor_types
from quantcli.runner.session import RunOptions

TEXTS = {"wiki": "wiki.test.raw", "books": "books.txt", "code": "code.txt"}
SEARCHED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
CODEBOOK = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
TOGETHER = 4  # types that share one pass of the reference: each keeps two models in memory
NOISE = 2.0  # standard errors within which two searches count as equal
MARKERS = ("<!-- measured -->", "<!-- /measured -->")


# ---- files -------------------------------------------------------------------------------------------------------


def quantize(shared: Path, folder: Path, name: str, search: str) -> Path:
    """All matrices of the blocks in one type, the rest in Q8_0."""
    path = folder / f"{name}-{search}.gguf"
    convert.run(
        convert_request(
            source=shared / "models" / "mid",
            types=("Q8_0",),
            output=path,
            search=search,
            imatrix=imatrix_path(shared),
            tensor_types=(rf"^blk\.[0-9]+\.[a-z_]+\.weight={name}",),
        )
    )
    return path


def imatrix_path(shared: Path) -> Path:
    return shared / "golden" / "mid-imatrix.gguf"


def with_blocks_of(path: Path, target: Path, name: str, tensors: list, encode: Callable) -> Path:
    """A copy of a file with the tensors of type `name` encoded by someone else: same sizes, same places."""
    row, header = tensor_types.by_name(name), container.read_header(path)
    shutil.copyfile(path, target)
    places = {info.name: header.data_start + info.offset for info in header.tensors if info.type_id == row.id}
    with open(target, "r+b") as file:
        for tensor, x, importance in tensors:
            if tensor in places:
                file.seek(places[tensor])
                file.write(encode(row, x, importance).tobytes())
    return target


def make_files(shared: Path, folder: Path, name: str, tensors: list, ggml: Path | None) -> list[Path]:
    """The two files of a type: ggml's search, ours."""
    best = quantize(shared, folder, name, "best")
    if name in CODEBOOK:
        return [with_blocks_of(best, folder / f"{name}-ggml.gguf", name, tensors, reference(ggml)), best]
    return [quantize(shared, folder, name, "ggml"), best]


# ---- divergence --------------------------------------------------------------------------------------------------


def divergences(base: Path, models: list[Path], given: argparse.Namespace) -> dict[tuple[str, str], dict]:
    """(file, text) -> what `quantcli compare` reports."""
    job = compare.prepare(
        compare.CompareRequest(
            reference=base,
            models=models,
            chunks=given.chunks,
            texts=[given.shared / "text" / file for file in TEXTS.values()],
            options=RunOptions(threads=given.threads, length=512),
        )
    )
    try:
        result = compare.execute(job)
    finally:
        job.close()
    names = {file: text for text, file in TEXTS.items()}
    return {(entry["name"], names[entry["text"]]): entry for entry in result["models"]}


def one_type(name: str, found: dict, files: list[Path]) -> dict:
    """Both searches on every text, the paired difference, and the sum over the texts."""
    line: dict = {"type": name, "bytes": [path.stat().st_size for path in files], "texts": {}}
    mean = variance = peer = 0.0
    for text in TEXTS:
        ggml, best = (found[f"{name}-{search}", text] for search in ("ggml", "best"))
        difference = paired(best["per_chunk"], ggml["per_chunk"])
        line["texts"][text] = {
            "chunks": best["chunks"],
            "difference": difference,
            "perplexity_ratio": best["ppl"]["ratio"] / ggml["ppl"]["ratio"],
            **{
                search: {"kld": one["kld"]["mean"], "se": one["kld"]["se"]}
                for search, one in (("ggml", ggml), ("best", best))
            },
        }
        mean, variance, peer = mean + difference["mean"], variance + difference["se"] ** 2, peer + ggml["kld"]["mean"]
    error = math.sqrt(variance)
    verdict = "equal" if abs(mean) <= NOISE * error else "better" if mean < 0 else "WORSE"
    line["sum"] = {"difference": mean, "se": error, "relative": mean / peer, "verdict": verdict}
    return line


# ---- blocks ------------------------------------------------------------------------------------------------------


def block_errors(
    name: str, x: numpy.ndarray, importance: numpy.ndarray, raw: numpy.ndarray, block: int
) -> numpy.ndarray:
    """What `best` minimises, of every block, float64."""
    row = tensor_types.by_name(name)
    difference = x.astype(numpy.float64) - kernels.decode(row.id, raw, *x.shape)
    weighted = objectives.importance_alone(name, x, importance) * difference * difference
    return weighted.reshape(len(x), -1, block).sum(axis=2)


def blocks_of_type(name: str, tensors: list, ggml: Path | None) -> dict:
    """How many blocks come out worse than ggml's, the worst, and the mean over tensors of the ratio of sums."""
    row, encode, ratios, of_tensors = tensor_types.by_name(name), reference(ggml), [], []
    for _, x, importance in tensors:
        ours = kernels.encode(row.id, x, importance, search="best")
        own, other = (block_errors(name, x, importance, raw, row.block) for raw in (ours, encode(row, x, importance)))
        of_tensors.append(own.sum() / other.sum())
        ratios.append((own / numpy.maximum(other, 1e-300)).ravel())
    every = numpy.concatenate(ratios)
    worse = every > 1 + 1e-6  # rounding of the float32 sums is no difference
    return {
        "type": name,
        "block": row.block,
        "blocks": every.size,
        "worse": float(worse.mean()),
        "p99": float(numpy.quantile(every, 0.99)),
        "p999": float(numpy.quantile(every, 0.999)),
        "most": float(every.max()),
        "mean": float(numpy.mean(of_tensors)),
        "tensor": float(max(of_tensors)),
    }


# ---- the page ----------------------------------------------------------------------------------------------------


def divergence_table(lines: list[dict]) -> Iterator[str]:
    yield ("| type | MB | text | KLD, ggml | KLD, best | difference, best - ggml | PPL, best / ggml |")
    yield "|---|---|---|---|---|---|---|"
    for line in lines:
        for text, at in line["texts"].items():
            ggml, best, change = at["ggml"], at["best"], at["difference"]
            yield (
                f"| {line['type']} | {line['bytes'][1] / 1e6:.2f} | {text} | {ggml['kld']:.5f} ± {ggml['se']:.5f} "
                f"| {best['kld']:.5f} ± {best['se']:.5f} | {change['mean']:+.5f} ± {change['se']:.5f} "
                f"| {at['perplexity_ratio']:.4f} |"
            )


def verdict_table(lines: list[dict]) -> Iterator[str]:
    yield "| type | texts where best is lower | sum of the three differences | of ggml's KLD | best is |"
    yield "|---|---|---|---|---|"
    for line in lines:
        lower, total = sum(at["difference"]["mean"] < 0 for at in line["texts"].values()), line["sum"]
        yield (
            f"| {line['type']} | {lower} of {len(TEXTS)} | {total['difference']:+.5f} ± {total['se']:.5f} "
            f"| {100 * total['relative']:+.1f} % | {total['verdict']} |"
        )


def block_table(blocks: list[dict]) -> Iterator[str]:
    yield (
        "| type | weights of a block | mean ratio of tensors | worst tensor | blocks worse than ggml's "
        "| 99 % of blocks below | 99.9 % | worst block |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for at in blocks:
        yield (
            f"| {at['type']} | {at['block']} | {at['mean']:.4f} | {at['tensor']:.4f} | {100 * at['worse']:.2f} % "
            f"| {at['p99']:.3f} | {at['p999']:.3f} | {at['most']:.3f} |"
        )


def measured_part(result: dict) -> str:
    """What the script knows, as Markdown."""
    parts = [f"{result['date']}, {result['cpu']}, `{result['command']}`. {result['peer']}."]
    if result["lines"]:
        parts += ["\n".join(verdict_table(result["lines"])), "\n".join(divergence_table(result["lines"]))]
    if result["blocks"]:
        parts += ["Block by block, the squared errors times the importance:", "\n".join(block_table(result["blocks"]))]
    return "\n\n".join(parts)


def write_page(path: Path, part: str) -> None:
    """Replace what stands between the markers of the page; a page without them gets a new one."""
    start, end = MARKERS
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Searches compared\n\n{start}\n{end}\n"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{start}\n{part}\n\n{end}", text, count=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--types", nargs="+", help="default: every type with a scale search")
    parser.add_argument("--chunks", type=int, default=40, help="of 512 tokens, of each text")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ggml", type=Path, metavar="FILE", help="libggml-base of the peer")
    parser.add_argument("--no-divergence", action="store_true", help="blocks only")
    parser.add_argument("--no-blocks", action="store_true", help="divergence only")
    parser.add_argument("--output", type=Path, help="page whose measured part is rewritten")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    ggml = find_ggml(given.ggml)
    types = given.types or [*SEARCHED, *(CODEBOOK if ggml else ())]
    command = f"python scripts/bench_searches.py --chunks {given.chunks}"
    command += f" --types {' '.join(given.types)}" if given.types else ""
    peer = (
        "Codebook types against ggml's own quantizer"
        if ggml
        else "Codebook types only where llama-cpp-python is installed; `--search ggml` of the others has ggml's bytes"
    )
    result: dict = {"schema": 1, **kernel_report.machine(), "command": command, "peer": peer, "lines": [], "blocks": []}
    tensors = list(linear_tensors(given.shared / "models" / "mid", imatrix_path(given.shared), 1))
    if not given.no_blocks:
        for name in types:
            result["blocks"].append(blocks_of_type(name, tensors, ggml))
            print(list(block_table(result["blocks"]))[-1], flush=True)
    for first in range(0, len(types) if not given.no_divergence else 0, TOGETHER):
        with tempfile.TemporaryDirectory(prefix="quantcli-searches-") as scratch:
            folder = Path(scratch)
            base = folder / "base.gguf"
            convert.run(convert_request(source=given.shared / "models" / "mid", types=("BF16",), output=base))
            files = {
                name: make_files(given.shared, folder, name, tensors, ggml) for name in types[first : first + TOGETHER]
            }
            found = divergences(base, [path for pair in files.values() for path in pair], given)
            for name, pair in files.items():
                result["lines"].append(one_type(name, found, pair))
                print(
                    *list(divergence_table(result["lines"]))[-3:],
                    list(verdict_table(result["lines"]))[-1],
                    sep="\n",
                    flush=True,
                )
        if given.json:
            given.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if given.output:
        write_page(given.output, measured_part(result))


if __name__ == "__main__":
    main()
