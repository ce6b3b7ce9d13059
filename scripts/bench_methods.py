#!/usr/bin/env python3
"""A method beside the plain search, both without importance, judged by KL divergence on three texts, type by type.

    python scripts/bench_methods.py [--method hqq] [--shared ../shared] [--types Q4_K Q6_K] [--chunks 10] [--threads 2]
                                    [--output docs/methods.md] [--json FILE]

Every matrix of the blocks of models/mid gets one type, embeddings and head stay BF16. The reference is the BF16 file.
Beside it stand the sums of |error|^(3/4) and of squared errors over these tensors, and the processor seconds of the
conversions. --output rewrites what stands between the page's markers.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import kernel_report
from bench_searches import NOISE, TEXTS, divergences, write_page
from quantcli import loader
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.evaluate.divergence import paired
from quantcli.methods.table import METHODS

PLAIN = "plain"
POWERS = {"p": 0.75, "squares": 2.0}
TOGETHER = 4  # types that share one pass of the reference: each keeps two models in memory


# ---- files -------------------------------------------------------------------------------------------------------


def quantize(given: argparse.Namespace, folder: Path, name: str, method: str) -> tuple[Path, float]:
    """All matrices of the blocks in one type, the rest in BF16: the file, and the processor seconds."""
    request = convert_request(
        source=given.shared / "models" / "mid",
        types=("Q8_0",),
        output=folder / f"{name}-{method}.gguf",
        method=method,
        tensor_types=(rf"^blk\.[0-9]+\.[a-z_]+\.weight={name}",),
        output_tensor_type="BF16",
        token_embedding_type="BF16",
        threads=given.threads,
    )
    start = time.process_time()
    result = convert.run(request)
    seconds = time.process_time() - start
    assert not result["outputs"][0]["method_fallbacks"], f"{method} does not take all of {name}"
    return Path(result["outputs"][0]["path"]), seconds


def error_sums(base: Path, path: Path) -> dict[str, float]:
    """Sums of |error|^power over the matrices of the blocks."""
    sums = dict.fromkeys(POWERS, 0.0)
    with loader.open_model(base) as reference, loader.open_model(path) as model:
        wanted = {tensor.name: tensor for tensor in reference.tensors}
        for tensor in model.tensors:
            if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
                true = wanted[tensor.name].reader.read_rows(0, tensor.rows).astype(numpy.float64)
                error = numpy.abs(tensor.reader.read_rows(0, tensor.rows) - true)
                for key, power in POWERS.items():
                    sums[key] += float((error**power).sum())
    return sums


# ---- figures -----------------------------------------------------------------------------------------------------


def one_type(name: str, method: str, found: dict, made: dict, base: Path) -> dict:
    """Both files on every text, the paired differences, their sum over the texts, the sums of errors, the seconds."""
    line: dict = {"type": name, "texts": {}}
    mean = variance = peer = 0.0
    for text in TEXTS:
        plain, other = (found[f"{name}-{one}", text] for one in (PLAIN, method))
        difference = paired(other["per_chunk"], plain["per_chunk"])
        line["texts"][text] = {
            "plain": plain["kld"]["mean"],
            "method": other["kld"]["mean"],
            "se": [plain["kld"]["se"], other["kld"]["se"]],
            "difference": difference,
            "perplexity_ratio": other["ppl"]["ratio"] / plain["ppl"]["ratio"],
        }
        mean, variance, peer = mean + difference["mean"], variance + difference["se"] ** 2, peer + plain["kld"]["mean"]
    error = math.sqrt(variance)
    verdict = "equal" if abs(mean) <= NOISE * error else "better" if mean < 0 else "worse"
    line["sum"] = {"difference": mean, "se": error, "relative": mean / peer, "verdict": verdict}
    (plain_file, plain_seconds), (file, seconds) = (made[name, one] for one in (PLAIN, method))
    plain_sums, sums = error_sums(base, plain_file), error_sums(base, file)
    line["errors"] = {key: sums[key] / plain_sums[key] for key in POWERS}
    line["seconds"] = [plain_seconds, seconds]
    return line


def verdict_table(method: str, lines: list[dict]) -> Iterator[str]:
    yield (
        f"| type | texts where {method} is lower | sum of the three differences | of plain's KLD | {method} is "
        "| sum of abs(error)^(3/4) | of error^2 | CPU s, plain | CPU s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in lines:
        lower, total = sum(at["difference"]["mean"] < 0 for at in line["texts"].values()), line["sum"]
        errors, (plain, seconds) = line["errors"], line["seconds"]
        yield (
            f"| {line['type']} | {lower} of {len(TEXTS)} | {total['difference']:+.5f} ± {total['se']:.5f} "
            f"| {100 * total['relative']:+.1f} % | {total['verdict']} | {errors['p']:.4f} | {errors['squares']:.4f} "
            f"| {plain:.1f} | {seconds:.1f} |"
        )


def divergence_table(method: str, lines: list[dict]) -> Iterator[str]:
    yield f"| type | text | KLD, plain | KLD, {method} | difference | PPL, {method} / plain |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        for text, at in line["texts"].items():
            change = at["difference"]
            yield (
                f"| {line['type']} | {text} | {at['plain']:.5f} ± {at['se'][0]:.5f} | {at['method']:.5f} "
                f"± {at['se'][1]:.5f} | {change['mean']:+.5f} ± {change['se']:.5f} | {at['perplexity_ratio']:.4f} |"
            )


def measured_part(result: dict) -> str:
    """What the script knows, as Markdown."""
    method, lines = result["method"], result["lines"]
    parts = [f"{result['date']}, {result['cpu']}, `{result['command']}`."]
    parts += ["\n".join(verdict_table(method, lines)), "\n".join(divergence_table(method, lines))]
    return "\n\n".join(parts)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--method", default="hqq", choices=sorted(set(METHODS) - {PLAIN}))
    parser.add_argument("--types", nargs="+", help="default: every type that the method takes")
    parser.add_argument("--chunks", type=int, default=10, help="of 512 tokens, of each text")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="page whose measured part is rewritten")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    taken = METHODS[given.method].types or ()
    types = given.types or sorted(taken, key=lambda name: (name.endswith("_K"), name))
    command = f"python scripts/bench_methods.py --method {given.method} --chunks {given.chunks}"
    command += f" --types {' '.join(given.types)}" if given.types else ""
    result: dict = {"schema": 1, **kernel_report.machine(), "command": command, "method": given.method, "lines": []}
    for first in range(0, len(types), TOGETHER):
        with tempfile.TemporaryDirectory(prefix="quantcli-methods-") as scratch:
            folder, made = Path(scratch), {}
            base = folder / "base.gguf"
            convert.run(convert_request(source=given.shared / "models" / "mid", types=("BF16",), output=base))
            for name in types[first : first + TOGETHER]:
                for method in (PLAIN, given.method):
                    made[name, method] = quantize(given, folder, name, method)
            found = divergences(base, [path for path, _ in made.values()], given)
            for name in types[first : first + TOGETHER]:
                result["lines"].append(one_type(name, given.method, found, made, base))
                print(list(verdict_table(given.method, result["lines"]))[-1], flush=True)
        if given.json:
            given.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if given.output:
        write_page(given.output, measured_part(result))


if __name__ == "__main__":
    main()
