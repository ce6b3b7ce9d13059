"""The oracles in ``tests/oracles``: tiny checkpoints with what llama.cpp's converter and transformers make of them.

One file per checkpoint, ``<pack>/<name>.tar.xz``, made by ``scripts/pack_oracles.py``. It holds the files of the oracle
folder as they are, but the weights, which were drawn from a seed per tensor: in place of ``X.safetensors`` there are

    X.safetensors.draws.json   sha256 of the file, and the tensors that a seed gives (``Draw``)
    X.safetensors.rest         the file, exclusive-or with what the draws give: zeros where they are right; the header,
                               a tensor without a draw and the few last bits that differ stand there

``unpack`` gives the folder back, byte for byte.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy
from numpy.typing import NDArray

from helpers.normals import normals
from quantcli import architectures

PACKS = Path(__file__).parents[1] / "oracles"
SUFFIX = ".tar.xz"
VOCABULARIES = PACKS / "vocabularies.tar.xz"  # made by scripts/pack_vocabularies.py: no weights
NO_TENSORS = b"\x02\0\0\0\0\0\0\0{}"  # a safetensors file with nothing in it
DRAWS, REST = ".draws.json", ".rest"
#: those that matter most: also the order of their tensors and their size labels are compared
MUST = (
    "gemma gemma2 gemma3 granite llama-k256 llama-quirks llama-spm llama-tied-bias llama3 mistral-spm mistral-tekken "
    "mixtral phi3 qwen2 qwen3 qwen3-moe smollm3"
).split()
#: those that see both directions and predict no next tokens
ENCODERS = ("bert", "bge-reranker-xlmr", "embeddinggemma", "eurobert", "jina-bert-v2")


@dataclass(frozen=True, slots=True)
class Draw:
    """Where numbers from a seed lie in a file, and how they were scaled: ``mean + scale * normal``, in float32."""

    offset: int  # bytes from the start of the file
    count: int
    dtype: str  # F32, F16 or BF16
    seed: int
    start: int  # numbers of that seed passed over: the experts of a layer are slices of one draw
    scale: float
    mean: float

    def stored(self) -> bytes:
        plain = normals(self.seed, self.start + self.count)[self.start :]
        values = plain * numpy.float32(self.scale) + numpy.float32(self.mean)
        return as_stored(values, self.dtype).tobytes()


def as_stored(values: NDArray[numpy.float32], dtype: str) -> NDArray[numpy.generic]:
    """float32 numbers in a dtype of safetensors, rounded to nearest even."""
    if dtype == "BF16":
        bits = values.view(numpy.uint32)
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype])


def drawn(size: int, draws: Iterable[Draw]) -> NDArray[numpy.uint8]:
    """``size`` bytes: what the draws give, zeros elsewhere."""
    found = numpy.zeros(size, numpy.uint8)
    for draw in draws:
        part = numpy.frombuffer(draw.stored(), numpy.uint8)
        found[draw.offset : draw.offset + len(part)] = part
    return found


def names(pack: str = "arch*") -> list[str]:
    """The checkpoints of a pack, or of several; those of "derived" have a record of the converter and no logits."""
    return sorted(path.name.removesuffix(SUFFIX) for path in PACKS.glob(f"{pack}/*{SUFFIX}"))


@cache
def decoders() -> tuple[str, ...]:
    """Those of attention and MLPs alone, by what their architectures declare: what transforms and calibration take."""
    return tuple(name for name in names() if _is_plain(architectures.find(architecture(name)).graph))


def _is_plain(graph: architectures.Graph | None) -> bool:
    return graph is not None and graph.causal and not (graph.latent or graph.recurrent or graph.encoder_decoder)


def architecture(name: str) -> str:
    """The GGUF architecture that is recorded."""
    (packed,) = PACKS.glob(f"*/{name}{SUFFIX}")
    with tarfile.open(packed) as archive:
        found: str = json.load(archive.extractfile("expected.json"))["metadata"]["general.architecture"]["value"]
    return found


@cache
def place() -> Path:
    """Where this process unpacks; removed at its end, not at that of a child that it forks."""
    made, owner = Path(tempfile.mkdtemp(prefix="quantcli-oracles-")), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(made, ignore_errors=True))
    return made


@cache
def folder(name: str) -> Path:
    """The folder of an oracle, unpacked on first use. Nobody writes there."""
    return unpack(name, place())


@cache
def vocabulary_files() -> dict[str, bytes]:
    """What the pack of vocabularies holds: ``<pack>/<name>/<file>`` -> content."""
    with tarfile.open(VOCABULARIES) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


@cache
def vocabularies() -> dict[str, Path]:
    """Folders with the small files of a checkpoint each, by ``<pack>/<name>``; their weights are an empty file."""
    found: dict[str, Path] = {}
    for file, data in vocabulary_files().items():
        path = place() / "vocabularies" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if path.name == "expected.json":
            found["/".join(file.split("/")[:2])] = path.parent
            (path.parent / "model.safetensors").write_bytes(NO_TENSORS)
    return found


def unpack(name: str, target: Path) -> Path:
    """Write the oracle called ``name`` to ``target/name``; ValueError if the weights are not what was packed."""
    (packed,) = PACKS.glob(f"*/{name}{SUFFIX}")
    with tarfile.open(packed) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    for key in [key for key in files if key.endswith(DRAWS)]:
        recipe = json.loads(files.pop(key))
        file = key.removesuffix(DRAWS)
        rest = numpy.frombuffer(files.pop(file + REST), numpy.uint8)
        data = (rest ^ drawn(len(rest), (Draw(**row) for row in recipe["draws"]))).tobytes()
        if hashlib.sha256(data).hexdigest() != recipe["sha256"]:
            raise ValueError(f"{packed}: {file} does not come back as it was")
        files[file] = data
    for file, data in files.items():
        path = target / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return target / name


def pack(source: Path, target: Path, draws: dict[str, list[Draw]]) -> None:
    """Write a checkpoint folder to ``target``; ``draws`` says, by file, which tensors a seed gives."""
    files: dict[str, bytes] = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        file, data = path.relative_to(source).as_posix(), path.read_bytes()
        if path.suffix != ".safetensors":
            files[file] = data
            continue
        rows = draws.get(file, [])
        recipe = {"sha256": hashlib.sha256(data).hexdigest(), "draws": [asdict(row) for row in rows]}
        files[file + DRAWS] = json.dumps(recipe).encode()
        files[file + REST] = (numpy.frombuffer(data, numpy.uint8) ^ drawn(len(data), rows)).tobytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file, data in files.items():
            entry = tarfile.TarInfo(file)  # no times, no owner: the same bytes every time
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(content.getvalue(), preset=9 | lzma.PRESET_EXTREME))
