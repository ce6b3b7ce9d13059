"""A release of twelve types from a hub to a hub, killed at five moments and run again; then every file reproduced.

    python scripts/bench_release.py build/SmolLM2-135M-Instruct --text ../shared/text/wiki.test.raw

Both hubs are one on this machine (tests/helpers/loopback_hub.py), read and written by the real client. It is made
once without being stopped; then anew, where SIGKILL ends it at five moments (while it fetches, calibrates, converts,
measures, uploads), and the same command goes on. Complete: the repository holds the same hashes as the first; nothing
twice: what one run had complete, no later run did again. Prints a table, and ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.loopback_hub import LoopbackHub
from quantcli.output.checksums import Checksums

TYPES = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q3_K_M", "IQ3_M", "Q2_K", "IQ2_M",
)  # fmt: skip
#: a kill: the words of the release's own talk that it waits for, then seconds
MOMENTS = (
    ("fetch ", 0.2),
    ("plan ", 1.0),
    ("calibrate imatrix.gguf: ", 0.8),
    ("verify ", 1.5),
    ("card README.md: ", 0.7),
)
SOURCE, TARGET = "org/source", "org/release-GGUF"


def main() -> None:
    options = _options()
    with LoopbackHub() as hub, tempfile.TemporaryDirectory() as name:
        place = Path(name)
        hub.store.create(SOURCE, options.checkpoint.resolve())
        environment = {**os.environ, **hub.environment(place / "home", "hf_test_token")}
        environment |= {"PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1700000000"}
        whole = _describe(place / "whole", options, f"{TARGET}-whole")
        start = time.monotonic()
        first = _run(whole, options, environment)
        seconds = time.monotonic() - start
        killed = _describe(place / "killed", options, TARGET)
        kills, runs = _kill(killed, options, environment)
        runs.append(_run(killed, options, environment))
        rows = [
            (f"release of {len(options.types)} types, not stopped", f"{seconds:.0f} s", bool(first)),
            ("killed at moments", f"{kills} of {len(MOMENTS)}", kills == len(MOMENTS)),
            ("files in the repository", *_complete(hub, place)),
            ("steps that were complete and done again", *_twice(runs)),
            ("reproduced, every byte", *_reproduced(place, options, environment)),
        ]
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {options.checkpoint.name}\n")
    print("| what | found | |\n|---|---|---|")
    for what, found, good in rows:
        print(f"| {what} | {found} | {'met' if good else 'missed'} |")
    sys.exit(0 if all(good for *_, good in rows) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="what is measured on")
    parser.add_argument("--types", nargs="+", default=list(TYPES))
    parser.add_argument("--chunks", type=int, default=4, help="of the evaluation")
    parser.add_argument("--imatrix-chunks", type=int, default=8)
    parser.add_argument(
        "--through", default="", help='before every command ("nice -n 5"); must become it (exec), to be killed'
    )
    return parser.parse_args()


def _describe(folder: Path, options: argparse.Namespace, repository: str) -> Path:
    """A folder with a release.toml."""
    folder.mkdir()
    (folder / "text.txt").write_bytes(options.text.read_bytes()[:2_000_000])
    (folder / "release.toml").write_text(
        f'source = "hf://{SOURCE}"\ntypes = {json.dumps(options.types)}\n'
        f'imatrix = {{ text = "text.txt", chunks = {options.imatrix_chunks} }}\nattest = true\n'
        f'[evaluate]\ntexts = ["text.txt"]\nchunks = {options.chunks}\n'
        f'[upload]\nrepository = "{repository}"\n'
    )
    return folder


def _command(options: argparse.Namespace, *words: str) -> list[str]:
    return [*shlex.split(options.through), sys.executable, "-m", "quantcli", *words]


def _release(options: argparse.Namespace) -> list[str]:
    return _command(options, "release", "release.toml", "--yes")


def _run(folder: Path, options: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """The release to its end; what it said, line by line."""
    done = subprocess.run(_release(options), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the release failed:\n{done.stderr}")
    return done.stderr.splitlines()


def _kill(folder: Path, options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[int, list[list[str]]]:
    """(kills that hit a run, what each of these runs said)."""
    hits, said = 0, []
    for words, seconds in MOMENTS:
        log = folder / "log.txt"
        with open(log, "w") as stream:
            run = subprocess.Popen(
                _release(options), cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stream
            )
            while run.poll() is None and not any(line.startswith(words) for line in log.read_text().splitlines()):
                time.sleep(0.02)
            time.sleep(seconds)
            alive = run.poll() is None
            run.send_signal(signal.SIGKILL)
            run.wait()
        hits += alive
        said.append(log.read_text().splitlines())
        print(f"killed {seconds} s behind {words!r}: {'yes' if alive else 'too late'}", file=sys.stderr)
    return hits, said


def _complete(hub: LoopbackHub, place: Path) -> tuple[str, bool]:
    """The killed release's repository beside that of the whole one."""
    found = []
    for name in (TARGET, f"{TARGET}-whole"):
        commit = hub.store.repositories[name].find("main")
        files = {} if commit is None else commit.files
        found.append({file: blob.sha256 for file, blob in files.items() if file.endswith((".gguf", "SHA256SUMS"))})
    same = sum(found[0].get(file) == digest for file, digest in found[1].items())
    return f"{len(found[0])}, {same} with the same hashes", found[0] == found[1]


def _twice(runs: Sequence[Sequence[str]]) -> tuple[str, bool]:
    """What several runs say that they did. Cards and statements are written by every run: they take no time."""
    done: Counter[str] = Counter()
    for lines in runs:
        for line in lines:
            step, _, rest = line.partition(" ")
            subject, _, outcome = rest.partition(": ")
            if step in ("calibrate", "convert", "verify", "measure", "upload") and outcome.startswith("done"):
                done.update(f"{step} {one}" for one in _subjects(subject))
    again = {name: count for name, count in done.items() if count > 1}
    return f"{len(again)} of {len(done)}" + (f": {', '.join(again)}" if again else ""), not again


def _subjects(text: str) -> list[str]:
    names, _, where = text.partition(" on ")
    return [f"{name} on {where}" if where else name for name in names.split(", ")]


def _reproduced(place: Path, options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Every file of the whole release from the hub's commit that it names."""
    folder, good = place / "whole" / "out", 0
    files = sorted(name for name in Checksums(folder / "SHA256SUMS").sums if name.endswith(".gguf"))
    for name in files:
        command = _command(options, "reproduce", str(folder / name), "--imatrix", "imatrix.gguf", "-q")
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        good += done.returncode == 0
        if done.returncode:
            print(f"{name}: {done.stderr}", file=sys.stderr)
    return f"{good} of {len(files)}", good == len(files) == len(options.types)


if __name__ == "__main__":
    main()
