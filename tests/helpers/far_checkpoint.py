"""A checkpoint at a hub of this machine, for tests of sources that are far away: fixtures and what tests share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.checkpoints import encode_tensors, read_tensors
from helpers.loopback_hub import LoopbackHub
from quantcli import container, places
from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.errors import QuantcliError
from quantcli.plan import recipes
from quantcli.report.terminal import Reporter
from quantcli.sources.hub import blocks, client, remote, tree

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "org/tiny"
ADDRESS = Path(f"hf://{NAME}")  # as Typer gives it: the path has lost a slash


@pytest.fixture(scope="module", name="folder")
def checkpoint_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint in two shards, one of which lies in another order than it is read in."""
    made = tmp_path_factory.mktemp("hub") / "tiny"
    shutil.copytree(root / "examples" / "tiny", made)
    tensors = read_tensors(made)
    (made / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = [dict.fromkeys(names[:12]), dict.fromkeys(names[12:])]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        (made / file).write_bytes(encode_tensors({name: tensors[name] for name in half}))
        weight_map |= dict.fromkeys(half, file)
    (made / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return made


@pytest.fixture(name="hub")
def hub_with_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Iterator[LoopbackHub]:
    """A hub with the checkpoint, and this process its client: no waiting between attempts, small blocks."""
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    for module in (blocks, remote):
        monkeypatch.setattr(module, "BLOCK", 128 << 10)
    monkeypatch.setattr(remote, "HEAD", 4 << 10)
    monkeypatch.setattr(remote, "POINT", 4 << 10)
    with LoopbackHub() as started:
        started.use(monkeypatch, tmp_path / "home")
        started.store.create(NAME, folder)
        yield started
        tree.forget()


def converted(source: Path, output: Path, *types: str, notes: list[str] | None = None) -> dict[str, bytes]:
    """The files of a conversion, by type; what was noted goes to ``notes``."""
    wanted = [recipes.parse(one) for one in types or ("Q4_K_M",)]
    reporter = Reporter(quiet=True)
    reporter.note = ([] if notes is None else notes).append  # type: ignore[method-assign]
    convert.run(ConvertRequest(source=source, file_types=wanted, output=output, into_folder=True, force=True), reporter)
    return {path.stem.rpartition("-")[2]: path.read_bytes() for path in output.iterdir()}


def weights(raw: bytes, path: Path) -> bytes:
    path.write_bytes(raw)
    return raw[container.read_header(path).data_start :]


def cache(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if path.is_file() and "snapshots" in path.parts)


def refused(hub: LoopbackHub, kind: type[QuantcliError], message: str, tmp_path: Path, source: Path = ADDRESS) -> str:
    """The error of a conversion, of which nothing is left and in which nothing secret stands; its hint."""
    output = tmp_path / "refused"
    with pytest.raises(kind, match=message) as caught:
        converted(source, output)
    assert type(caught.value) is kind
    assert not list(output.glob("*")), "nothing is left"
    text = places.shown(f"{caught.value}\n{caught.value.hint}")
    assert TOKEN not in text and "Signature" not in text and "snapshots" not in text
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    return str(caught.value.hint)
