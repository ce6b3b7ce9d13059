"""Files changed at random: read, or a typed error; never anything else."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from helpers import broken_files as b
from quantcli import container
from quantcli.errors import QuantcliError
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.gguf import open_gguf

FUZZ_ROUNDS = 4000


EDGES = [0, 1, 33, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, numbers that matter, cuts, repeats."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.randrange(256)
        elif kind == 2:
            data[at : at + 8] = struct.pack("<Q", rng.choice(EDGES))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + rng.randint(1, 16)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 64)]
    return bytes(data)


def survive(action: Callable[[], object]) -> bool:
    """Whether ``action`` succeeded; every error but a QuantcliError is a failure of the test."""
    try:
        action()
    except QuantcliError as error:
        assert str(error)
        return False
    return True


def read_gguf(path: Path) -> None:
    with open_gguf(path) as model:
        for value in model.metadata.values():
            if isinstance(value.data, container.Strings):
                survive(lambda value=value: list(value.data))
        container.encode_header(model.metadata, [])
        for tensor in model.tensors:
            assert tensor.rows * tensor.columns < 10**6
            tensor.reader.read_raw(0, tensor.rows)


def read_checkpoint(path: Path) -> None:
    with Checkpoint(path) as checkpoint:
        for tensor in checkpoint.tensors.values():
            assert len(tensor.read_bytes(0, tensor.nbytes)) == tensor.nbytes < 10**6


def test_mutated_gguf(tmp_path: Path) -> None:
    entries = [
        b.ARCHITECTURE,
        b.entry("n", 6, bytes(4)),
        b.entry("t", b.ARRAY, b.array(8, 3, b.text("x") * 3)),
        b.entry("i", b.ARRAY, b.array(5, 4, bytes(16))),
        b.entry("f", 7, b"\1"),
    ]
    rows = [b.row("a.weight", (32, 2), 8), b.row("b", (3,), 0, 96), b.row("c", (2, 1, 2), 30, 128)]
    sound = b.gguf(entries, rows, data=bytes(160))
    path, rng = tmp_path / "x.gguf", random.Random(1)
    path.write_bytes(sound)
    assert survive(lambda: read_gguf(path))
    outcomes = []
    for _ in range(FUZZ_ROUNDS):
        path.write_bytes(mutate(sound, rng))
        outcomes.append(survive(lambda: read_gguf(path)))
    assert 0.02 < sum(outcomes) / len(outcomes) < 0.9  # both paths were taken


def test_mutated_safetensors(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": b.tensor(), "b": b.tensor(16, 24, dtype="BF16", shape=(2, 2))}
    sound = b.safetensors(header, bytes(24))
    folder, rng = b.folder(tmp_path / "x", {"model.safetensors": sound}), random.Random(2)
    assert survive(lambda: read_checkpoint(folder))
    outcomes = []
    for _ in range(FUZZ_ROUNDS):
        (folder / "model.safetensors").write_bytes(mutate(sound, rng))
        outcomes.append(survive(lambda: read_checkpoint(folder)))
    assert 0.01 < sum(outcomes) / len(outcomes) < 0.9


def test_mutated_json(tmp_path: Path) -> None:
    shards = {
        b.INDEX: b.index({"a": b.ONE, "b": b.TWO}),
        b.ONE: b.sound_safetensors(["a"]),
        b.TWO: b.sound_safetensors(["b"]),
    }
    folder, rng = b.folder(tmp_path / "x", shards), random.Random(3)
    for name in (b.INDEX, "config.json"):
        sound = (folder / name).read_bytes()
        for _ in range(FUZZ_ROUNDS // 2):
            (folder / name).write_bytes(mutate(sound, rng))
            survive(lambda: b.read_folder(folder))
        (folder / name).write_bytes(sound)
    assert survive(lambda: b.read_folder(folder))
