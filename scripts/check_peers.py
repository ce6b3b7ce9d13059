#!/usr/bin/env python3
"""Load quantcli's files in llama.cpp (through llama-cpp-python) and compare what they say.

    python scripts/check_peers.py [--shared ../shared] [--smollm2 DIR] [--output docs/peers.md]

Converts models/mid and SmolLM2 (DIR: a checkpoint folder) to Q4_K_M, Q6_K and Q8_0, and the checkpoints of the
architecture oracle to the type their description asks for; loads every file in llama.cpp, feeds it a few tokens and
wants finite logits. Of files that `--quality best` made, llama.cpp's own perplexity is this project's. Then 32 greedy
tokens of mid's Q8_0 against its BF16 file on five prompts, and of its BF16 file in this project's runner against
llama.cpp: equal, or the margin between the two best tokens where they part. A grafted file loads, and adapters give the
logits of the merged model. Exit status 1 when a file does not load, a logit is not finite, or an adapter's logits or a
perplexity are other ones. --only takes one kind of rows: packed or mmproj, of checkpoints of the oracle folder
(packed/, mmproj/), or best."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
TYPES = ("Q4_K_M", "Q6_K", "Q8_0")
PROMPTS = (
    "Once upon a time there was a",
    "The function returns the number of",
    "It is a truth universally acknowledged",
    "def main(arguments):\n    ",
    "In the morning the old man went to the",
)
GREEDY = 32
BEST = (("-t", "Q3_K_M"), ("-t", "Q4_0"), ("-t", "IQ2_XS"), ("--like", "Q4_K_M"))
BEST_OPTIONS = ("--quality", "best", "--sampled-tokens", "8192")  # little text: it is about the files, not how good
CHUNKS = 16  # whose perplexity is compared: both round, so single tokens differ by more than the mean may
ADAPTED = ("llama-spm", "phi3", "qwen2", "qwen3-moe")  # bases of adapters: permuted, fused, plain, experts
#: tensors that mtmd needs and llama.cpp's own converter does not write, and the option that writes them
LEFT_OUT = {"v.token_embd.img_break": "--image-break"}

Row = tuple[str, str, str, bool]  # source, file, verdict, whether it is good

sys.path.insert(0, str(ROOT / "tests"))
from helpers import oracles


def convert(source: Path, types: list[str], folder: Path, *more: str) -> list[Path]:
    """Run `quantcli convert` and return the written files."""
    command = [sys.executable, "-m", "quantcli", "convert", str(source), "-o", f"{folder}/", "--json", *more]
    for name in types:
        command += ["-t", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return [Path(output["path"]) for output in json.loads(done.stdout)["outputs"]]


def quantcli(*words: str) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "quantcli", *words, "--quiet"], check=True, cwd=ROOT)


def load(path: Path, **more):
    """The model in llama.cpp, two threads, logits for every position."""
    import llama_cpp

    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False, **more)


def last_logits(model, tokens: list[int]) -> numpy.ndarray:
    """Float32 logits after ``tokens``, shape (vocabulary,)."""
    model.reset()
    model.eval(tokens)
    return numpy.array(model.scores[len(tokens) - 1], dtype=numpy.float32)


def check_file(path: Path, source: str) -> Row:
    """A row of the table: source, file, verdict."""
    try:
        model = load(path)
        count = min(8, model.n_vocab())
        logits = last_logits(model, list(range(count)))
        good = bool(numpy.isfinite(logits).all())
        verdict = "loads, logits finite" if good else "loads, LOGITS NOT FINITE"
        model.close()
    except Exception as error:
        good, verdict = False, f"DOES NOT LOAD: {error}"
    return source, path.name, verdict, good


def check_graft(folder: Path) -> Row:
    """A row: the small model with the embeddings of the large one."""
    small, large = convert(ROOT / "examples" / "tiny", ["Q4_K_M", "Q8_0"], folder / "graft")
    path = folder / "graft" / "tiny-grafted.gguf"
    quantcli("graft", str(small), str(large), "--tensors", "token_embd", "-o", str(path))
    return check_file(path, "graft")


def check_packed(source: Path, folder: Path) -> Row:
    """A row: a packed checkpoint, in the type that its description asks for."""
    description = json.loads((source / "expected.json").read_text())
    (path,) = convert(source, [description["outtype"]], folder / "packed")
    return check_file(path, f"packed/{source.name}")


def check_projectors(shared: Path, folder: Path) -> Iterator[Row]:
    """Rows of the oracle's projectors; once more with a tensor that llama.cpp's converter leaves out."""
    for record in sorted((shared / "mmproj").glob("*/expected.json")):
        row, option = check_projector(record.parent, folder)
        yield row
        if option:
            yield check_projector(record.parent, folder, option)[0]


def check_projector(source: Path, folder: Path, *more: str) -> tuple[Row, str]:
    """Whether llama.cpp's mtmd opens the projector beside its text model, both from one conversion: a row.

    And the option that writes a tensor that was missing.
    """
    out = folder / "-".join(("mmproj", source.name, *more))
    paths = convert(source, ["F16"], out, "--mmproj", "F16", *more)
    text, projector = sorted(paths, key=lambda path: path.name.startswith("mmproj-"))
    command = [sys.executable, __file__, "--projector", str(projector), str(text)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT)
    missing = re.search(r"unable to find tensor (\S+)", done.stderr)
    option = LEFT_OUT.get(missing[1], "") if missing and not more else ""
    if done.returncode == 0:
        verdict = "loads in mtmd"
    elif missing and option:
        verdict = f"mtmd wants {missing[1]}, which llama.cpp's converter does not write either"
    else:
        verdict = f"DOES NOT LOAD: {done.stderr.strip().splitlines()[-1:]}"
    name = " ".join((f"mmproj/{source.name}", *more))
    return (name, projector.name, verdict, "DOES NOT" not in verdict), option


def open_projector(projector: str, text: str) -> int:
    """Whether mtmd opens the projector for the text model: exit status; what it says goes to stderr."""
    from llama_cpp import mtmd_cpp

    model = load(Path(text))
    settings = mtmd_cpp.mtmd_context_params_default()
    settings.use_gpu, settings.warmup = False, False  # a warm-up of sound takes 30 s of it, more than tiny towers have
    return 0 if mtmd_cpp.mtmd_init_from_file(projector.encode(), model.model, settings) else 1


def check_adapter(base: Path, folder: Path) -> Row:
    """A row: logits with a made-up adapter, against those of the merged file."""
    from helpers import adapters
    from quantcli.sources.checkpoint import Checkpoint

    with Checkpoint(base) as checkpoint:  # embeddings that are the head as well stop llama.cpp
        shapes = {one.name: one.shape for one in checkpoint.logical_tensors if ".layers." in one.name}
    adapter = adapters.for_tensors(shapes).write(folder / f"adapter-{base.name}")
    plain, merged, factors = (folder / f"{base.name}-{kind}.gguf" for kind in ("plain", "merged", "adapter"))
    quantcli("convert", str(base), "-t", "F32", "-o", str(plain))
    quantcli("convert", str(base), "-t", "F32", "--merge-lora", str(adapter), "-o", str(merged))
    quantcli("convert", str(adapter), "--lora-base", str(base), "-o", str(factors))
    try:
        found = last_logits(load(plain, lora_path=str(factors)), list(range(8)))
        wanted = last_logits(load(merged), list(range(8)))
        apart = float(numpy.abs(found - wanted).max() / wanted.std())
        verdict, good = f"as merged: largest difference of a logit {apart:.1e} of their deviation", apart < 5e-3
    except Exception as error:
        verdict, good = f"DOES NOT LOAD: {error}", False
    return f"adapter for {base.name}", factors.name, verdict, good


def perplexity(path: Path, chunks) -> float:
    """llama.cpp's, of the positions that count in ``chunks`` (quantcli.runner.text.Chunks)."""
    import llama_cpp

    model = llama_cpp.Llama(
        str(path), n_ctx=chunks.length, n_batch=chunks.length, n_threads=2, logits_all=True, verbose=False
    )
    lost = []
    for number, ids in enumerate(chunks.inputs(0, len(chunks))):
        model.reset()
        model.eval(ids.tolist())
        scores = numpy.array(model.scores[: chunks.length], numpy.float64)[chunks.first_scored : -1]
        scores -= scores.max(axis=1, keepdims=True)
        wanted = chunks.tokens[number, chunks.first_scored + 1 :]
        lost.append(numpy.log(numpy.exp(scores).sum(axis=1)) - scores[numpy.arange(len(wanted)), wanted])
    model.close()
    return float(numpy.exp(numpy.mean(lost)))


def check_best(source: Path, folder: Path) -> Iterator[Row]:
    """Rows: files of `--quality best`, and their perplexity in llama.cpp and here."""
    from quantcli.runner.session import RunOptions, open_session
    from quantcli.runner.text import chunks_of

    text = ROOT / "docs" / "methods.md"
    for words in BEST:
        path = folder / f"best-{words[1]}{'-plan' if words[0] == '--like' else ''}.gguf"
        quantcli("convert", str(source), *words, *BEST_OPTIONS, "-o", str(path))
        with open_session(path, RunOptions()) as session:
            chunks = chunks_of(session.tokenizer, text, 512, chunks=CHUNKS)
        command = [sys.executable, "-m", "quantcli", "perplexity", str(path), "-f", str(text), "--chunks", str(CHUNKS)]
        done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True, cwd=ROOT)
        own, theirs = json.loads(done.stdout)["perplexity"]["mean"], perplexity(path, chunks)
        good = abs(theirs / own - 1) < 2e-3
        yield f"{source.name}, --quality best", path.name, f"perplexity {theirs:.3f}, here {own:.3f}", good


def greedy(model, prompt: str) -> tuple[list[int], list[float]]:
    """Greedy tokens and, for each, the margin between the best and the second-best logit."""
    tokens = model.tokenize(prompt.encode(), add_bos=True, special=False)
    out, margins = [], []
    for _ in range(GREEDY):
        logits = last_logits(model, tokens + out)
        best, second = numpy.argsort(-logits, kind="stable")[:2]
        out.append(int(best))
        margins.append(float(logits[best] - logits[second]))
    return out, margins


def compare_greedy(reference: Path, candidate: Path) -> list[tuple[str, str]]:
    """For each prompt: equal, or where and by which margin the two files part."""
    expected, got = load(reference), load(candidate)
    rows = []
    for prompt in PROMPTS:
        (a, margins), (b, _) = greedy(expected, prompt), greedy(got, prompt)
        rows.append((prompt, parting(a, b, margins, "the reference")))
    return rows


def parting(expected: list[int], got: list[int], margins: list[float], whose: str) -> str:
    """ "32 equal", or where the texts part."""
    place = next((i for i in range(GREEDY) if expected[i] != got[i]), None)
    return (
        f"{GREEDY} equal"
        if place is None
        else (f"parts at token {place + 1}, where {whose}'s two best logits differ by {margins[place]:.4f}")
    )


def own_greedy(path: Path, tokens: list[int]) -> list[int]:
    """Greedy tokens of this project's runner, with the activations that llama.cpp uses for the file."""
    from quantcli.runner import generation
    from quantcli.runner.sampling import Sampling
    from quantcli.runner.session import RunOptions, open_session

    with open_session(path, RunOptions(activations="q8")) as session:
        made = generation.Generation(list(tokens))
        return list(generation.generate(session, made, GREEDY, Sampling(temperature=0), ignore_end=True))


def compare_runner(path: Path) -> list[tuple[str, str]]:
    """For each prompt: whether this project's runner continues as llama.cpp does."""
    model = load(path)
    rows = []
    for prompt in PROMPTS:
        expected, margins = greedy(model, prompt)
        got = own_greedy(path, model.tokenize(prompt.encode(), add_bos=True, special=False))
        rows.append((prompt, parting(expected, got, margins, "llama.cpp")))
    model.close()
    return rows


def report(files, greedy_rows, runner_rows, peer: str) -> str:
    """The findings as a Markdown page."""
    lines = [
        "# quantcli's files in llama.cpp",
        "",
        f"{datetime.date.today()}, llama-cpp-python {peer}, {platform.machine()}. Printed by `make test-peers`.",
        "",
        "| source | file | in llama.cpp |",
        "|---|---|---|",
        *(f"| {source} | {name} | {verdict} |" for source, name, verdict, _ in files),
    ]
    for title, rows in (
        ("Greedy text of mid's Q8_0 against its BF16 file, both in llama.cpp", greedy_rows),
        ("Greedy text of mid's BF16 file, this project's runner against llama.cpp", runner_rows),
    ):
        if rows:
            lines += [
                "",
                f"{title}, {GREEDY} tokens:",
                "",
                "| prompt | tokens |",
                "|---|---|",
                *(f"| `{prompt!r}` | {verdict} |" for prompt, verdict in rows),
            ]
    return "\n".join(lines) + "\n"


def of_folder(kind: str, check: Callable[[Path, Path], Row]) -> Callable[[Path, Path], Iterator[Row]]:
    """The rows of all checkpoints in a folder of the oracle."""
    return lambda shared, folder: (check(one.parent, folder) for one in sorted((shared / kind).glob("*/expected.json")))


#: kinds of rows that can be asked for alone; given the oracle's folder and one to write to
KINDS: dict[str, Callable[[Path, Path], Iterator[Row]]] = {
    "packed": of_folder("packed", check_packed),
    "mmproj": check_projectors,
    "best": lambda shared, folder: check_best(ROOT / "examples" / "tiny", folder),
}


def of_kind(kind: str, shared: Path, folder: Path) -> list[Row]:
    """The rows of a kind, printed as they come."""
    rows = []
    for row in KINDS[kind](shared, folder):
        rows.append(row)
        print(*row[:3], sep="  ", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--smollm2", type=Path, help="checkpoint folder of SmolLM2-135M-Instruct")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=sorted(KINDS), help="only these rows, without a page")
    parser.add_argument("--projector", nargs=2, metavar=("FILE", "TEXT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.projector:
        return open_projector(*arguments.projector)
    if arguments.only:
        with tempfile.TemporaryDirectory(prefix="quantcli-peers-") as scratch:
            return 0 if all(good for *_, good in of_kind(arguments.only, arguments.shared, Path(scratch))) else 1
    import llama_cpp

    files, greedy_rows, runner_rows = [], [], []
    with tempfile.TemporaryDirectory(prefix="quantcli-peers-") as scratch:
        folder = Path(scratch)
        sources = {"examples/tiny": ROOT / "examples" / "tiny", "mid": arguments.shared / "models" / "mid"}
        if arguments.smollm2:
            sources["SmolLM2-135M-Instruct"] = arguments.smollm2
        for name, source in sources.items():
            if not source.is_dir():
                print(f"{name}: {source} is not here, left out", file=sys.stderr)
                continue
            for path in convert(source, list(TYPES), folder):
                files.append(check_file(path, name))
                print(*files[-1][:3], sep="  ", flush=True)
        for expected in sorted((arguments.shared / "arch").glob("*/expected.json")):
            description = json.loads(expected.read_text())
            if description["group"] == "must":
                (path,) = convert(expected.parent, [description["outtype"]], folder)
                files.append(check_file(path, f"arch/{expected.parent.name}"))
                print(*files[-1][:3], sep="  ", flush=True)
        (folder / "graft").mkdir()
        files.append(check_graft(folder))
        files += [check_adapter(oracles.folder(name), folder) for name in ADAPTED]
        for row in files[-1 - len(ADAPTED) :]:
            print(*row[:3], sep="  ", flush=True)
        files += [row for kind in KINDS for row in of_kind(kind, arguments.shared, folder)]
        if sources["mid"].is_dir():
            (bf16,) = convert(sources["mid"], ["BF16"], folder)
            greedy_rows = compare_greedy(bf16, folder / "mid-Q8_0.gguf")
            runner_rows = compare_runner(bf16)
            for row in greedy_rows + runner_rows:
                print(*row, sep="  ", flush=True)
    page = report(files, greedy_rows, runner_rows, llama_cpp.__version__)
    if arguments.output:
        arguments.output.write_text(page, encoding="utf-8")
    return 0 if files and all(good for *_, good in files) else 1


if __name__ == "__main__":
    sys.exit(main())
