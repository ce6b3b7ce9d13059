#!/usr/bin/env python3
"""Every recipe of models/mid in llama.cpp: our file beside the one that llama.cpp's own quantizer writes.

    python scripts/check_recipes.py [--shared ../shared] [--chunks 10] [--types Q4_K_M ...] [--output docs/recipes.md]

One `quantcli convert` writes all our files (default search, mid-imatrix.gguf); llama_model_quantize writes llama.cpp's
from the BF16 GGUF with the same matrix. Both are loaded in llama.cpp and scored on wiki.test.raw as llama-perplexity
does (chunks of 512 tokens, the second half of each counts). Needs llama-cpp-python. Exit status 1 when a file does not
load or a perplexity is above 1.02 times that of llama.cpp's file.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, BAR = 512, 1.02


def convert(source: Path, types: list[str], folder: Path, *options: str) -> tuple[dict[str, Path], dict]:
    """Type -> our file, and the report of the run."""
    command = [sys.executable, "-m", "quantcli", "convert", str(source), "-o", str(folder), "--json", *options]
    for name in types:
        command += ["-t", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(done.stderr)
    report = json.loads(done.stdout)
    return {output["type"]: Path(output["path"]) for output in report["outputs"]}, report


def peer_quantize(source: Path, target: Path, number: int, matrix: Path) -> bool:
    """llama.cpp's own quantizer; whether it did."""
    import llama_cpp

    from quantcli.statistics import imatrix

    entries = imatrix.read(matrix).entries
    data = (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))()
    for i, (name, values) in enumerate(entries.items()):
        data[i] = (name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype, settings.imatrix = 2, number, data
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    return status == 0


def perplexity(path: Path, tokens: list[int], chunks: int) -> float:
    """exp of the mean negative log-likelihood, as FACTS of llama-perplexity say."""
    import llama_cpp

    model = llama_cpp.Llama(
        str(path), n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False
    )
    total, count, first = 0.0, 0, CONTEXT // 2
    for chunk in range(chunks):
        part = tokens[chunk * CONTEXT : (chunk + 1) * CONTEXT]
        model.reset()
        model.eval([model.token_bos(), *part[1:]] if model._model.add_bos_token() else part)
        logits = numpy.asarray(model.scores[first : CONTEXT - 1], dtype=numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        norm = numpy.log(numpy.exp(logits).sum(axis=1))
        total += float((norm - logits[numpy.arange(len(logits)), part[first + 1 :]]).sum())
        count += len(logits)
    model.close()
    return math.exp(total / count)


def page(rows: list[str], chunks: int, seconds: float, version: str) -> str:
    """docs/recipes.md."""
    return f"""# Every recipe of models/mid in llama.cpp

{datetime.date.today()}, llama-cpp-python {version}. Perplexity of {chunks} chunks of 512 tokens of wiki.test.raw in \
llama.cpp: quantcli's file (default search) and the one of llama.cpp's own quantizer, both with mid-imatrix.gguf. \
Printed by `python scripts/check_recipes.py`.

All {len(rows)} files of quantcli came from one read of the checkpoint in {seconds} s.

| recipe | quantcli | llama.cpp | ratio | |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--types", nargs="*")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> int:
    arguments = arguments_of()
    import llama_cpp

    from quantcli.plan import recipes

    mid, matrix = arguments.shared / "models/mid", arguments.shared / "golden/mid-imatrix.gguf"
    names = arguments.types or [n for n, row in recipes.FILE_TYPES.items() if row.selectable and not row.copies]
    rows, failed = [], False
    with tempfile.TemporaryDirectory(prefix="quantcli-recipes-") as scratch:
        folder = Path(scratch)
        ours, report = convert(mid, names, folder, "--imatrix", str(matrix))
        source = convert(mid, ["BF16"], folder, "--force")[0]["BF16"].rename(folder / "source.gguf")
        text = (arguments.shared / "text/wiki.test.raw").read_bytes().removesuffix(b"\n")
        tokenizer = llama_cpp.Llama(str(source), vocab_only=True, verbose=False)
        tokens = tokenizer.tokenize(text[: arguments.chunks * CONTEXT * 12], add_bos=True, special=False)
        print(f"one read of the source, {len(names)} files: {report['seconds']} s", flush=True)
        for name in names:
            path = ours[name] if name != "BF16" else source
            mine = perplexity(path, tokens, arguments.chunks)
            theirs_path = folder / "theirs.gguf"
            done = peer_quantize(source, theirs_path, recipes.FILE_TYPES[name].number, matrix)
            theirs = perplexity(theirs_path, tokens, arguments.chunks) if done else math.nan
            ratio = mine / theirs
            failed |= not mine < math.inf or ratio > BAR
            rows.append(
                f"| {name} | {mine:.3f} | {theirs:.3f} | {ratio:.4f} | {'above the bar' if ratio > BAR else ''} |"
            )
            print(rows[-1], flush=True)
    if arguments.output:
        arguments.output.write_text(
            page(rows, arguments.chunks, report["seconds"], llama_cpp.__version__), encoding="utf-8"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
