#!/usr/bin/env python3
"""Which weights of the squared errors serve: KL divergence of files that differ in what the better search minimises.

    python scripts/bench_objectives.py [--shared ../shared] [--types Q4_0 Q3_K] [--chunks 20] [--threads 2]
                                       [--output docs/objectives.md]

Every 2-D tensor of the blocks of models/mid gets one type, embeddings and head Q8_0, each row encoded with the
weights of a rule as its importance: with mid-imatrix.gguf, and without. The figures are divergences from the BF16
file relative to those of `--search ggml`. --output rewrites what stands between the page's markers."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import kernel_report
import objectives
from bench_quality import linear_tensors
from bench_searches import TEXTS, divergences, imatrix_path, quantize, with_blocks_of, write_page
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.ggml import kernels

Array = numpy.ndarray
TYPES = ("Q4_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS", "IQ3_S")


def plus_mean(x: Array) -> Array:
    """sigma2 + x^2, sigma2 the mean of x^2 over the row."""
    return objectives.means(x, objectives.ROW) + x * x


Rule = Callable[[str, Array, Array | None], Array]
#: (with an importance matrix, rule) -> weights [rows, columns] of type name, x float64, importance [columns] or None
RULES: dict[tuple[bool, str], Rule] = {
    (True, "q"): objectives.importance_alone,
    (True, "q sqrt(sigma2 + x^2)"): lambda name, x, q: q * numpy.sqrt(plus_mean(x)),
    (True, "ggml's"): objectives.ggml_weights,
    (False, "1"): objectives.importance_alone,
    (False, "sqrt(sigma2 + x^2)"): lambda name, x, q: numpy.sqrt(plus_mean(x)),
    (False, "sigma2 + x^2"): lambda name, x, q: plus_mean(x),
    (False, "x^2"): lambda name, x, q: x * x,
    (False, "ggml's"): objectives.ggml_weights,
}


def encoder(name: str, given: bool, rule: Rule) -> Callable:
    """`encode(row, x, importance)`: the better search, every row with its own weights; importance counts if `given`."""

    def encode(row, x: Array, importance: Array) -> Array:
        q = importance.astype(numpy.float64) if given else None
        weights = rule(name, x.astype(numpy.float64), q).astype(numpy.float32)
        return numpy.concatenate(
            [
                kernels.encode(row.id, x[i : i + 1], numpy.ascontiguousarray(weights[i]), search="best")
                for i in range(len(x))
            ]
        )

    return encode


def ggml_without(row, x: Array, importance: Array) -> Array:
    """`--search ggml` without the importance."""
    return kernels.encode(row.id, x, None, search="ggml")


def files(shared: Path, folder: Path, name: str, tensors: list) -> dict[tuple[bool, str], Path]:
    """One file per rule, and `--search ggml` with and without importance."""
    made = {(True, ""): quantize(shared, folder, name, "ggml")}
    encoders = {(False, ""): ggml_without, **{key: encoder(name, key[0], rule) for key, rule in RULES.items()}}
    for index, (key, encode) in enumerate(encoders.items()):
        made[key] = with_blocks_of(made[True, ""], folder / f"{name}-{index}.gguf", name, tensors, encode)
    return made


def lines_of(name: str, base: Path, given: argparse.Namespace, tensors: list) -> Iterator[str]:
    """A row of the table per rule."""
    with tempfile.TemporaryDirectory(dir=base.parent) as scratch:
        made = files(given.shared, Path(scratch), name, tensors)
        found = divergences(base, list(made.values()), given)

        def divergence(key: tuple[bool, str], text: str) -> float:
            return found[made[key].stem, text]["kld"]["mean"]

        for key in RULES:
            of = [divergence(key, text) / divergence((key[0], ""), text) for text in TEXTS]
            yield (
                f"| {name} | {'yes' if key[0] else 'no'} | {key[1]} | "
                + " | ".join(f"{ratio:.3f}" for ratio in of)
                + f" | {float(numpy.mean(of)):.3f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--types", nargs="+", choices=list(objectives.OBJECTIVES), default=TYPES, metavar="TYPE")
    parser.add_argument("--chunks", type=int, default=20, help="of 512 tokens, of each text")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="page whose measured part is rewritten")
    given = parser.parse_args()
    about = kernel_report.machine()
    tensors = list(linear_tensors(given.shared / "models" / "mid", imatrix_path(given.shared), 1))
    lines = [
        f"| type | imatrix | weights of the squared errors | {' | '.join(TEXTS)} | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="quantcli-objectives-") as folder:
        base = Path(folder) / "base.gguf"
        convert.run(convert_request(source=given.shared / "models" / "mid", types=("BF16",), output=base))
        for name in given.types:
            for line in lines_of(name, base, given, tensors):
                lines.append(line)
                print(line, flush=True)
    if given.output:
        command = f"python scripts/bench_objectives.py --chunks {given.chunks}"
        command += f" --types {' '.join(given.types)}" if given.types != TYPES else ""
        write_page(given.output, f"{about['date']}, {about['cpu']}, `{command}`.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
