"""What is fuzzed: seeds, how they are changed, and the command lines that must end well for every mutant."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fuzz.mutators import ARRAY, Entry, Gguf, Tensor, encode_gguf, mutate_bytes, mutate_gguf, mutate_json
from helpers import oracles

TEXT = "Once upon a time there was a model that believed whatever its metadata said. " * 12
LENGTH = "32"  # positions of a chunk
RUNNER_SEEDS = ("llama3", "qwen3-moe", "gemma3", "phi3", "llama-tied-bias")

Mutant = Callable[[random.Random, Path], list[list[str]]]  # writes a mutant into a folder; the commands to run on it


@dataclass(frozen=True)
class Target:
    """One kind of input. ``share``: how many mutants it gets, relative to the others."""

    name: str
    share: int
    mutant: Callable[[], Mutant]  # prepares the seeds once


def unpack(work: Path) -> Path:
    """The folder of the bundled checkpoints, below ``work``: unpacked once, for all processes."""
    checkpoints = work / "checkpoints"
    if not checkpoints.exists():
        with tempfile.TemporaryDirectory(dir=work) as making:
            for name in oracles.names():
                oracles.unpack(name, Path(making) / "all")
            (Path(making) / "all").rename(checkpoints)
    return checkpoints


def copied_checkpoint(source: Path, folder: Path) -> Path:
    """A private copy of a checkpoint, links for what stays."""
    folder.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.suffix in (".json", ".model", ".safetensors", ".txt") and path.name not in (
            "expected.json",
            "tokens.json",
        ):
            (folder / path.name).symlink_to(path)
    return folder


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def plain_gguf(path: Path) -> Gguf:
    """A GGUF file taken apart."""
    from quantcli import container
    from quantcli.container import Strings

    header, raw = container.read_header(path), path.read_bytes()
    metadata = {}
    for key, value in header.metadata.items():
        if value.type == ARRAY:
            data = list(value.data) if isinstance(value.data, Strings) else [number.item() for number in value.data]
            metadata[key] = Entry(ARRAY, data, int(value.element))
        else:
            metadata[key] = Entry(int(value.type), value.data)
    tensors = []
    for info in header.tensors:
        start = header.data_start + info.offset
        tensors.append(Tensor(info.name, list(info.shape), info.type_id, raw[start : start + info.bytes]))
    return Gguf(metadata, tensors)


def _quantcli(command: list[str]) -> None:
    """A command that prepares seeds, quietly, in this process."""
    from quantcli.cli.app import app

    with contextlib.redirect_stdout(io.StringIO()):
        app([*command, "--quiet"], standalone_mode=False)


@cache
def seeds(work: Path, names: Sequence[str] = RUNNER_SEEDS) -> list[Gguf]:
    """The bundled checkpoints as small GGUF files of several types; each may get the other ones' metadata."""
    made = []
    for name, file_type in zip(names, ("F32", "Q8_0", "BF16", "F16", "Q4_0"), strict=False):
        path = work / f"{name}.gguf"
        if not path.exists():
            _quantcli(["convert", str(unpack(work) / name), "-t", file_type, "-o", str(path), "--force"])
        made.append(plain_gguf(path))
    for one in made:
        prefix = f"{one.metadata['general.architecture'].data}."
        for other in made:
            stem = f"{other.metadata['general.architecture'].data}."
            one.pool.update({key.replace(stem, prefix): entry for key, entry in other.metadata.items()})
    return made


def _text(folder: Path) -> str:
    path = folder / "text.txt"
    if not path.exists():
        path.write_text(TEXT)
    return str(path)


def _runner(work: Path) -> Mutant:
    files = seeds(work)

    def mutant(rng: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "mutant.gguf"
        path.write_bytes(mutate_gguf(rng.choice(files), rng))
        model, text = str(path), _text(folder)
        one = ["perplexity", model, "-f", text, "-c", LENGTH, "--chunks", "1", "--threads", "1", "--json"]
        other = rng.choice(
            (
                ["generate", model, "-p", "Once", "-n", "3", "--threads", "1", "--json"],
                ["imatrix", model, "-f", text, "-c", LENGTH, "--chunks", "1", "--threads", "1", "--json",
                 "-o", str(folder / "imatrix.gguf"), "--force"],
                ["compare", model, model, "-f", text, "-c", LENGTH, "--chunks", "1", "--threads", "1", "--json"],
                ["inspect", model, "--json"],
                ["verify", model, "--json"],
                ["convert", model, "-t", "Q4_0", "--allow-requantize", "--dry-run", "--json"],
            )
        )  # fmt: skip
        return [one, other]

    return mutant


def _gguf_bytes(work: Path) -> Mutant:
    raws = [encode_gguf(file) for file in seeds(work)]

    def mutant(rng: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "mutant.gguf"
        path.write_bytes(mutate_bytes(rng.choice(raws), rng))
        return [rng.choice((["inspect", str(path), "--json"], ["verify", str(path), "--json"])),
                ["convert", str(path), "-t", "COPY", "--dry-run", "--json"]]  # fmt: skip

    return mutant


def _imatrix(work: Path) -> Mutant:
    seeds(work)
    sources = []
    for suffix in ("gguf", "dat"):
        path, model = work / f"seed-imatrix.{suffix}", str(work / "llama3.gguf")
        if not path.exists():
            _quantcli(["imatrix", model, "-f", _text(work), "-c", LENGTH, "--chunks", "1", "-o", str(path), "--force"])
        sources.append((suffix, path.read_bytes()))

    def mutant(rng: random.Random, folder: Path) -> list[list[str]]:
        suffix, raw = rng.choice(sources)
        path, model = folder / f"mutant.{suffix}", folder / "model.gguf"
        path.write_bytes(mutate_bytes(raw, rng))
        model.symlink_to(work / "llama3.gguf")  # a mutant that is kept holds all that its commands need
        return [["inspect", str(path), "--json"],
                ["convert", str(model), "-t", "Q4_0", "--imatrix", str(path), "--json", "--force",
                 "-o", str(folder / "made.gguf")]]  # fmt: skip

    return mutant


def _checkpoint_file(work: Path, *, pattern: str, change: Callable[[bytes, random.Random], bytes]) -> Mutant:
    """Mutants of one file (a shell pattern) of a bundled checkpoint."""
    checkpoints = unpack(work)
    names = sorted(path.name for path in checkpoints.iterdir() if list(path.glob(pattern)))

    def mutant(rng: random.Random, folder: Path) -> list[list[str]]:
        name = rng.choice(names)
        checkpoint = copied_checkpoint(checkpoints / name, folder / "checkpoint")
        victim = rng.choice(sorted(checkpoint.glob(pattern)))
        _replace(victim, change(victim.read_bytes(), rng))
        kind = rng.choice(("F16", "Q8_0"))
        return [["convert", str(checkpoint), "-t", kind, "-o", str(folder / "made.gguf"), "--force", "--json"],
                ["inspect", str(checkpoint), "--json"]][: 1 + (rng.random() < 0.2)]  # fmt: skip

    return mutant


def targets(work: Path) -> Iterator[Target]:
    """All targets; ``work`` keeps their seeds, for all processes and later runs."""
    of_file = partial(_checkpoint_file, work)
    yield Target("runner", 30, partial(_runner, work))
    yield Target("gguf", 20, partial(_gguf_bytes, work))
    yield Target("imatrix", 10, partial(_imatrix, work))
    yield Target("safetensors", 15, partial(of_file, pattern="*.safetensors", change=mutate_bytes))
    yield Target("tokenizer-json", 10, partial(of_file, pattern="tokenizer*.json", change=mutate_json))
    yield Target("tokenizer-model", 5, partial(of_file, pattern="tokenizer.model", change=mutate_bytes))
    yield Target("config", 10, partial(of_file, pattern="*config.json", change=mutate_json))


def clear(folder: Path) -> None:
    """Empty a folder between mutants."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
