#!/usr/bin/env python3
"""One line per method of the literature on a model: KL divergence beside llama.cpp's encoder of the same type.

    python scripts/bench_literature.py --list
    python scripts/bench_literature.py --row 'Q4_0 rtn' --row ... | --all | --missing [--chunks 6] [--threads 2]
    python scripts/bench_literature.py --entropy
    python scripts/bench_literature.py --output docs/methods.md

All matrices of the blocks get one type (embeddings and head stay BF16), activations are float unless a row says q8.
The divergence from the BF16 model is measured on three texts; a ratio is the geometric mean over them of the
divergence over that of the type's baseline: ggml's search with an importance matrix of the same calibration text (24
chunks of ../shared/text/calibration.txt). Its error is paired over chunks. Rows are kept in docs/methods.tsv, --output
writes them and the systems of docs/systems.tsv into the page.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import kernel_report
import literature as papers
from literature import Bench, Variant
from quantcli.evaluate.divergence import paired
from quantcli.ggml import kernels
from quantcli.ggml.compensate import Effort
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.runner import cache

TABLE = ROOT / "docs" / "methods.tsv"
SYSTEMS = ROOT / "docs" / "systems.tsv"  # every named system: what it is, where it lives, its rows, what else is said
FIELDS = (
    "model",
    "row",
    "baseline",
    "ratio",
    "se",
    *papers.TEXTS,
    "note",
    "seconds",
    "chunks",
    "date",
    "commit",
    "cpu",
)
MODELS = ("mid", "smollm2", "tiny")
ENTROPY = ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
STEPS = {
    "gptq alone": Effort(True, False, 0, 0, False),
    "polish alone": Effort(False, True, 0, 0),
    "polish + refit": Effort(False, True, 3, 2),
    "gptq + polish": Effort(True, True, 0, 0),
    "gptq + polish + refit": Effort(),
}

Make = Callable[["Measuring"], Variant]


# ---- the rows: name -> (baseline's row, what makes it) ---------------------------------------------------------------


def _plain(kind: str, search: str, *, weigh: bool) -> Make:
    return lambda bench: Variant(bench.plain, papers.searched(bench, kind, search, weigh=weigh))


def _steps(kind: str, effort: Effort) -> Make:
    return lambda bench: Variant(bench.plain, papers.compensated(bench, kind, effort))


def _simulated(work: Callable) -> Make:
    return lambda bench: Variant(bench.plain, papers.simulated(bench, work))


def _low_rank(kind: str, rank: int) -> Make:
    def make(bench: Bench) -> Variant:
        contents, note = papers.low_rank(bench, kind, rank)
        return Variant(bench.plain, contents, note=note)

    return make


def _rewritten(see: Callable[[Bench], papers.Seen], kind: str, how: str, activations: str = "float") -> Make:
    """A rewritten model; the note says how far it is from the same function before it is quantized."""

    def make(bench: Measuring) -> Variant:
        seen, note = bench.once(see)
        if how in STEPS:
            contents = papers.compensated(bench, kind, STEPS[how], seen)
        else:
            search, weigh = {"rtn": ("ggml", False), "plain": ("best", False), "weighted": ("best", True)}[how]
            contents = papers.searched(bench, kind, search, weigh=weigh, seen=seen)
        return Variant(seen, contents, activations, note=note)

    return make


def _with(make: Make, **changes: str) -> Make:
    def made(bench: Bench) -> Variant:
        found = make(bench)
        return Variant(found.seen, found.contents, **{"activations": found.activations, **changes}, note=found.note)

    return made


def _unturned(kind: str) -> Make:
    """A cache type without the rotation: for this row alone, before the network is made."""

    def make(bench: Bench) -> Variant:
        return Variant(bench.plain, {}, kv_type=kind, note="unturned")

    return make


def _transform(name: str, kind: str = "Q4_0") -> Callable[[Bench], papers.Seen]:
    def see(bench: Bench) -> papers.Seen:
        return papers.rescaled(bench, name, kind)

    see.__name__ = f"{name} {kind}"
    return see


EQUALIZED, SMOOTH, SCALED = _transform("equalize"), _transform("smoothquant"), _transform("awq")
SCALED_3 = _transform("awq", "Q3_K")


ROTATIONS = {
    "R1 of the eigenbasis": papers.in_eigenbasis,
    "awq, R1": papers.scaled_and_rotated,
    "R2": papers.heads_rotated,
}


def rows() -> dict[str, tuple[str, Make]]:
    """Every row by its name; a row that is its own baseline is called "TYPE stock"."""
    found: dict[str, tuple[str, Make]] = {}

    def add(name: str, make: Make, baseline: str | None = None) -> None:
        found[name] = (baseline or f"{name.split()[0]} stock", make)

    for kind in ("Q4_0", "Q3_K", "Q2_K", "Q4_K"):
        add(f"{kind} stock", _plain(kind, "ggml", weigh=True))
    add("Q4_0 rtn", _plain("Q4_0", "ggml", weigh=False))
    add("Q4_0 plain", _plain("Q4_0", "best", weigh=False))
    add("Q4_0 weighted", _plain("Q4_0", "best", weigh=True))
    for times in (1, 16):
        add(
            f"Q4_0 stochastic, best of {times}",
            lambda b, n=times: Variant(b.plain, papers.stochastic(b, "Q4_0", n)),
        )
    for name in papers.observers.OBSERVERS:
        add(f"Q4_0 int4 a row, {name}", _simulated(papers.by_observer(name)))
    add("Q4_0 int4 a tensor, min-max", _simulated(papers.per_tensor))
    for how in ("rtn", "weighted"):
        add(f"Q4_0 equalize + {how}", _rewritten(EQUALIZED, "Q4_0", how))
        add(f"Q4_0 smoothquant + {how}", _rewritten(SMOOTH, "Q4_0", how))
        add(f"Q4_0 R1 + {how}", _rewritten(papers.rotated, "Q4_0", how))
    add("Q4_0 awq + weighted", _rewritten(SCALED, "Q4_0", "weighted"))
    for name, effort in STEPS.items():
        add(f"Q4_0 {name}", _steps("Q4_0", effort))
    everything = "gptq + polish + refit"
    add(f"Q4_0 R1 + {everything}", _rewritten(papers.rotated, "Q4_0", everything))
    for name, see in ROTATIONS.items():
        for how in ("weighted", everything):
            add(f"Q4_0 {name} + {how}", _rewritten(see, "Q4_0", how))
    add(f"Q4_0 awq + {everything}", _rewritten(SCALED, "Q4_0", everything))
    for rank in (4, 8, 16, 32):
        add(f"Q3_K LoRC rank {rank}", _low_rank("Q3_K", rank))
    add("Q3_K weighted", _plain("Q3_K", "best", weigh=True))
    add(f"Q3_K {everything}", _steps("Q3_K", STEPS[everything]))
    add("Q3_K R1 + weighted", _rewritten(papers.rotated, "Q3_K", "weighted"))
    add(f"Q3_K R1 + {everything}", _rewritten(papers.rotated, "Q3_K", everything))
    add(f"Q3_K awq + {everything}", _rewritten(SCALED_3, "Q3_K", everything))
    add("Q4_0 NF4, blocks of 32", _simulated(papers.normal_float))
    add("Q4_0 hqq", lambda b: Variant(b.plain, papers.half_quadratic(b, "Q4_0")))
    add("Q4_0 OWQ, 1 % of columns apart", _simulated(papers.weak_columns))
    add("Q4_0 outliers apart, 0.5 %", _simulated(papers.without_outliers))
    add("Q4_0 pruned by 30 %, not quantized", _simulated(papers.pruned))
    for kind in ("Q4_1", "IQ4_NL", "IQ4_XS", "MXFP4", "Q4_K"):
        add(f"Q4_0 as {kind}", _plain(kind, "best", weigh=True))
    for kind in ("IQ3_S", "IQ3_XXS"):
        add(f"Q3_K as {kind}", _plain(kind, "best", weigh=True))
    for kind in ("IQ2_S", "IQ2_XS", "IQ1_S", "TQ2_0"):
        add(f"Q2_K as {kind}", _plain(kind, "best", weigh=True))
    for name, work in papers.TERNARY.items():
        add(f"Q2_K {name}", _simulated(work))
    _activations(add)
    return found


def _activations(add: Callable) -> None:
    """Weights, activations, cache."""
    q8 = {"activations": "q8"}
    add("Q8_0 stock", _plain("Q8_0", "ggml", weigh=False))
    add("Q8_0 with q8 activations", _with(_plain("Q8_0", "ggml", weigh=False), **q8))
    add("Q8_0 smoothquant + plain, q8 activations", _rewritten(SMOOTH, "Q8_0", "plain", "q8"))
    add("Q4_0 stock, q8 activations", _with(_plain("Q4_0", "ggml", weigh=True), **q8))
    add("Q4_0 smoothquant + weighted, q8 activations", _rewritten(SMOOTH, "Q4_0", "weighted", "q8"))
    for kind in ("Q8_0", "Q4_0"):
        add(f"Q8_0 cache {kind} alone", _with(lambda b: Variant(b.plain, {}), kv_type=kind))
        add(f"Q8_0 cache {kind} alone, not rotated", _unturned(kind))
    for kind in ("Q8_0", "Q4_0"):
        add(f"Q4_0 stock, q8 activations, cache {kind}", _with(_plain("Q4_0", "ggml", weigh=True), kv_type=kind, **q8))


# ---- measuring -------------------------------------------------------------------------------------------------------


class Measuring(Bench):
    """A bench that keeps rewritten models and baselines."""

    def __init__(self, shared: Path, folder: Path, chunks: int, threads: int) -> None:
        super().__init__(shared, folder, chunks, threads)
        self.kept: dict[str, tuple[papers.Seen, str]] = {}
        self.known: dict[str, dict[str, list[float]]] = {}

    def holds(self, name: str) -> bool:
        """Whether every type that a row names has blocks of which the model's rows consist."""
        columns = {values.shape[1] for values in self.plain.values.values()}
        kinds = [BY_NAME[word] for word in f"{name} {rows()[name][0]}".split() if word in BY_NAME]
        return all(count % kind.block == 0 for kind in kinds for count in columns)

    def once(self, see: Callable[[Bench], papers.Seen]) -> tuple[papers.Seen, str]:
        """A rewritten model, and how far it is from the same function."""
        if see.__name__ not in self.kept:
            seen = see(self)
            exact = numpy.mean([numpy.mean(values) for values in self.divergences(Variant(seen, {})).values()])
            self.kept = {see.__name__: (seen, f"rewritten, not quantized: KLD {exact:.0e}")}  # one: they take memory
        return self.kept[see.__name__]

    def row(self, name: str) -> tuple[dict[str, list[float]], str]:
        """Divergences of every chunk, and the note."""
        _, make = rows()[name]
        variant = make(self)
        turned = cache.ROTATED
        try:
            if variant.note == "unturned":
                cache.ROTATED = 1 << 30  # type: ignore[misc]
            found = self.divergences(variant)
        finally:
            cache.ROTATED = turned  # type: ignore[misc]
        return found, "" if variant.note == "unturned" else variant.note

    def line(self, name: str) -> dict[str, str]:
        """One line of the table of figures."""
        start = time.monotonic()
        baseline = rows()[name][0]
        if baseline not in self.known:
            self.known[baseline] = self.row(baseline)[0]
        found, note = (self.known[baseline], "") if baseline == name else self.row(name)
        ratios, errors = [], []
        for text, own in found.items():
            peer = numpy.mean(self.known[baseline][text])
            ratios.append(numpy.mean(own) / peer)
            scaled = numpy.array(self.known[baseline][text]) * ratios[-1]
            errors.append(paired(own, scaled.tolist())["se"] / (peer * ratios[-1]))
        ratio = math.exp(numpy.mean(numpy.log(ratios)))
        return {
            "row": name,
            "baseline": baseline,
            "ratio": f"{ratio:.4f}",
            "se": f"{ratio * math.sqrt(sum(one**2 for one in errors)) / len(errors):.4f}",
            **{text: f"{numpy.mean(own):.6f}" for text, own in found.items()},
            "note": note,
            "seconds": f"{time.monotonic() - start:.0f}",
        }


def entropy(bench: Bench) -> Iterator[str]:
    """What an ideal code of every tensor's codes would take: Huffman's least."""
    yield "| type | bits of a code | entropy of the codes | file, bits per weight | coded ideally | saved |"
    yield "|---|---|---|---|---|---|"
    for kind in ENTROPY:
        tensor_type = BY_NAME[kind]
        layout = kernels.layout(tensor_type.id)
        assert layout is not None
        if any(values.shape[1] % tensor_type.block for values in bench.plain.values.values()):
            continue
        total = weights = 0.0
        for name, packed in papers.searched(bench, kind, "best", weigh=True).items():
            shape = bench.plain.values[name].shape
            scale, minimum = (
                numpy.repeat(part, layout.sub_block, axis=1)
                for part in kernels.parameters(tensor_type.id, packed.data, *shape)
            )
            with numpy.errstate(all="ignore"):
                codes = numpy.rint((kernels.decode(tensor_type.id, packed.data, *shape) - minimum) / scale)
            codes = numpy.nan_to_num(codes).astype(numpy.int64)
            shares = numpy.bincount((codes - codes.min()).reshape(-1)) / codes.size
            shares = shares[shares > 0]
            total, weights = total - codes.size * float((shares * numpy.log2(shares)).sum()), weights + codes.size
        bits, ideal = math.log2(layout.high - layout.low + 1), total / weights
        saved = tensor_type.bpw - math.ceil(bits) + ideal
        yield (
            f"| {kind} | {math.ceil(bits)} | {ideal:.3f} | {tensor_type.bpw:.3f} | {saved:.3f} "
            f"| {100 * (1 - saved / tensor_type.bpw):.1f} % |"
        )


# ---- the table -------------------------------------------------------------------------------------------------------


def read() -> dict[tuple[str, str], dict[str, str]]:
    if not TABLE.exists():
        return {}
    with open(TABLE, encoding="utf-8", newline="") as file:
        return {(line["model"], line["row"]): line for line in csv.DictReader(file, delimiter="\t")}


def write(lines: dict[tuple[str, str], dict[str, str]]) -> None:
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        order = [(model, name) for model in MODELS for name in rows() if (model, name) in lines]
        writer.writerows(lines[key] for key in order)


def figure(name: str, lines: dict[tuple[str, str], dict[str, str]]) -> str:
    """A row's ratio in every model that it was measured on."""
    found = [f"{float(lines[model, name]['ratio']):.3f} ({model})" for model in MODELS if (model, name) in lines]
    return f"`{name}` " + (", ".join(found) or "not measured")


def systems_table() -> Iterator[str]:
    """Every named system."""
    lines = read()
    with open(SYSTEMS, encoding="utf-8", newline="") as file:
        known = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    yield "| system | what it is | where it lives here | measured |"
    yield "|---|---|---|---|"
    for one in known:
        said = [figure(name, lines) for name in one["rows"].split("; ") if name]
        said += [one["said"]] if one["said"] else []
        yield f"| {one['system']} | {one['what']} | {one['where']} | {'; '.join(said) or '–'} |"


def table() -> Iterator[str]:
    """Every row that was measured."""
    yield "| model | row | ratio | to | wiki | books | code | |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in read().values():
        own = line["row"] == line["baseline"]
        ratio = "1" if own else f"{float(line['ratio']):.3f} ± {float(line['se']):.3f}"
        texts = " | ".join(f"{float(line[text]):.5f}" for text in papers.TEXTS)
        peer = "" if own else line["baseline"]
        yield f"| {line['model']} | {line['row']} | {ratio} | {peer} | {texts} | {line['note']} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--model", default="mid", choices=MODELS)
    parser.add_argument("--smollm2", type=Path, default=ROOT / "build" / "SmolLM2-135M-Instruct")
    parser.add_argument("--dry", action="store_true", help="print, don't write the table")
    parser.add_argument("--row", action="append", default=[], metavar="NAME")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--missing", action="store_true", help="rows that are not in the table")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--entropy", action="store_true")
    parser.add_argument("--chunks", type=int, default=6, help="of 512 tokens, of each text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="page whose measured part is rewritten")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    known = read()
    wanted = given.row or [name for name in rows() if given.all or (given.missing and (given.model, name) not in known)]
    if given.list:
        print("\n".join(rows()))
    if wanted or given.entropy:
        folder = given.smollm2 if given.model == "smollm2" else given.shared / "models" / given.model
        bench = Measuring(given.shared, folder, given.chunks, given.threads)
        if given.entropy:
            print("\n".join(entropy(bench)))
        revision = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(revision, capture_output=True, text=True).stdout.strip()
        machine = kernel_report.machine()
        for name in filter(bench.holds, wanted):
            line = bench.line(name)
            line |= {
                "model": given.model,
                "chunks": str(given.chunks),
                "date": machine["date"],
                "commit": commit,
                "cpu": machine["cpu"],
            }
            print(f"{name}: {line['ratio']} ± {line['se']} {line['note']}", flush=True)
            if not given.dry:
                write({**read(), (given.model, name): line})
    if given.output:
        text = given.output.read_text(encoding="utf-8")
        for part, lines in (("systems", systems_table()), ("literature", table())):
            start, end = f"<!-- {part} -->", f"<!-- /{part} -->"
            made = f"{start}\n" + "\n".join(lines) + f"\n{end}"
            text = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, m=made: m, text, flags=re.DOTALL)
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
