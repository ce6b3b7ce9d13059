#!/usr/bin/env python3
"""What tuning by gradient gains behind quantization alone, at the same types and bytes (needs the extra torch).

    python scripts/bench_tuning.py [MODEL] [--type Q2_K] [--steps 300] [--quality fast] [--text FILE]

MODEL (default: models/tiny of the oracle folder, else examples/tiny) is converted, tuned on bundled text towards the
checkpoint, and both files are compared with it (float activations) on a text that tuning never saw.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--type", default="Q2_K")
    parser.add_argument("--quality", default="fast", help="of the file that is tuned")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2e-3, help="of codes, in levels")
    parser.add_argument("--no-codes", action="store_true", help="scales, minima and norms alone")
    parser.add_argument("--sampled", type=int, default=0, help="tokens that the base writes")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    return parser.parse_args()


def quantcli(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def main() -> None:
    given = arguments()
    from quantcli.torch import TuneSettings, tune

    oracle = given.shared / "models" / "tiny"
    model = given.model or (oracle if oracle.is_dir() else ROOT / "examples" / "tiny")
    text = given.text or given.shared / "text" / "books.txt"
    settings = TuneSettings(
        steps=given.steps, code_rate=given.rate, codes=not given.no_codes, sampled=given.sampled, length=256
    )
    print(f"{model.name}, {given.type}, {platform.machine()}, {datetime.date.today()}: {settings}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        start, tuned = Path(folder) / "start.gguf", Path(folder) / "tuned.gguf"
        quantcli("convert", model, "-t", given.type, "--quality", given.quality, "-o", start)
        begun = time.monotonic()
        found = tune(model, start, tuned, settings, progress=tell)
        seconds = time.monotonic() - begun
        words = ["-f", text, "--chunks", given.chunks, "--activations", "float", "--json"]
        before, after = json.loads(quantcli("compare", model, start, tuned, *words))["models"]
        print(f"held-out text: {found.before:.4f} before, {found.after:.4f} after {found.steps} steps, {seconds:.0f} s")
        first, second = before["kld"]["mean"], after["kld"]["mean"]
        print(f"{text.name}: divergence {first:.4f} quantized, {second:.4f} tuned: {second / first:.3f} of it")
        print(f"bytes of tensors: {start.stat().st_size} and {tuned.stat().st_size} (with what made it)")


def tell(done: int, of: int, loss: float) -> None:
    if done % 25 == 0:
        print(f"  step {done} of {of}, loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
