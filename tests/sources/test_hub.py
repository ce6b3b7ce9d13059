"""Sources at the hub, read through the real client from a hub on this machine (helpers/loopback_hub.py)."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
import itertools

from helpers.checkpoints import encode_tensors, read_tensors
from helpers.loopback_hub import _SECRET, Fault, LoopbackHub
from helpers.program import quantcli
from quantcli import container, loader, places
from quantcli.cli.frame import _in_their_words
from quantcli.commands import check, convert, inspect
from quantcli.commands.job import ConvertRequest
from quantcli.errors import (
    BadAnswer,
    MissingFile,
    MissingPackage,
    NoAccess,
    OutputFailed,
    PickleCheckpoint,
    QuantcliError,
    Unreachable,
    UnsupportedFile,
    UsageError,
)
from quantcli.plan import recipes
from quantcli.report.terminal import Reporter
from quantcli.sources import ways
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.hub import blocks, client, remote, sums, transport, tree

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "org/tiny"
ADDRESS = Path(f"hf://{NAME}")  # as Typer gives it: the path has lost a slash


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Iterator[LoopbackHub]:
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


# ---- what comes


def test_the_same_bytes_without_a_copy(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    """Weights and metadata as from a folder, every byte read once for three files, none kept; the commit recorded."""
    far = converted(ADDRESS, tmp_path / "far", "Q4_K_M", "Q8_0", "BF16")
    near = converted(folder, tmp_path / "near", "Q4_K_M", "Q8_0", "BF16")
    for name, raw in far.items():
        assert weights(raw, tmp_path / "a.gguf") == weights(near[name], tmp_path / "b.gguf")
    told = container.read_header(tmp_path / "far" / "tiny-BF16.gguf").metadata
    commit = hub.store.repositories[NAME].references["main"]
    assert told["quantcli.source.commit"].data == commit
    assert told["general.source.repo_url"].data == f"https://huggingface.co/{NAME}"
    assert not [name for name in cache(tmp_path / "home") if name.endswith(".safetensors")]
    sent, size = hub.sent(), sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    small = sum((folder / name).stat().st_size for name in ("tokenizer.model",))
    assert sent - small == size


def test_every_byte_once(hub: LoopbackHub, tmp_path: Path, folder: Path) -> None:
    """No range is asked for twice, whatever the tensors' order."""
    converted(ADDRESS, tmp_path / "out", "Q4_K_M", "Q6_K")
    for path in folder.glob("*.safetensors"):
        found = sorted(hub.ranges(path.name))
        assert sum(stop - start for start, stop in found) == path.stat().st_size
        assert all(stop <= after for (_, stop), (after, _) in itertools.pairwise(found))


def test_what_was_held_against_the_hash_is_said(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files wait for those bytes that come later; of large ones that are read in another order no sum is made."""
    notes: list[str] = []
    converted(ADDRESS, tmp_path / "a", notes=notes)
    assert "note: sha256 of 2 of 2 files held against the hub's" in notes
    tree.forget()
    monkeypatch.setattr(sums, "WAITING", 0)
    monkeypatch.setattr(sums, "GAP", 0)
    converted(ADDRESS, tmp_path / "b", notes=notes)
    assert any("0 of 2 files held against the hub's; the others are read in another order" in one for one in notes)


def test_as_from_the_cache(hub: LoopbackHub, tmp_path: Path) -> None:
    """A snapshot that the client downloaded gives the same file, and then nothing is asked for but its name."""
    far = converted(ADDRESS, tmp_path / "far")
    import huggingface_hub

    snapshot = Path(huggingface_hub.snapshot_download(NAME))
    assert converted(snapshot, tmp_path / "near") == far
    tree.forget()
    before = hub.sent()
    assert converted(ADDRESS, tmp_path / "again") == far
    assert hub.sent() == before


def test_inspect_reads_headers_only(hub: LoopbackHub, folder: Path) -> None:
    found = inspect.describe(ADDRESS)
    assert found["path"] == f"hf://{NAME}"
    assert len(found["tensors"]) == 38
    assert all(stop <= remote.HEAD for _, stop in hub.ranges(".safetensors"))


def test_check_and_dry_run(hub: LoopbackHub, tmp_path: Path) -> None:
    assert check.run(check.CheckRequest(source=ADDRESS))["ok"]
    assert all(stop <= remote.HEAD for _, stop in hub.ranges(".safetensors"))
    result = convert.run(ConvertRequest(source=ADDRESS, file_types=[recipes.parse("Q8_0")], dry_run=True))
    assert result["source"]["path"] == f"hf://{NAME}"
    asked = [path for path in hub.ranges(".safetensors") if path[1] > remote.HEAD]
    assert sum(stop - start for start, stop in asked) <= 1 << 20, "no more than tells how fast the link is"


def test_gguf(hub: LoopbackHub, tmp_path: Path, folder: Path) -> None:
    """A GGUF file of a repository, in a folder of it; headers without its weights, and a conversion."""
    path = tmp_path / "tiny-BF16.gguf"
    path.write_bytes(converted(folder, tmp_path / "near", "BF16")["BF16"])
    hub.store.create("org/tiny-GGUF", {"BF16/tiny-BF16.gguf": path, "README.md": "# Tiny"})
    address = Path("hf://org/tiny-GGUF/BF16/tiny-BF16.gguf")
    assert inspect.describe(address)["kind"] == "gguf"
    assert converted(address, tmp_path / "a")["Q4_K_M"][-100:] == converted(path, tmp_path / "b")["Q4_K_M"][-100:]
    with pytest.raises(MissingFile, match="no config.json in this folder, but GGUF") as caught:
        loader.open_model("hf://org/tiny-GGUF/BF16")
    assert "hf://org/tiny-GGUF/BF16/tiny-BF16.gguf" in places.shown(str(caught.value.hint))


def test_small_files_below(hub: LoopbackHub, tmp_path: Path, folder: Path) -> None:
    """A small file in a folder of the repository is brought into the client's cache when it is asked for."""
    files = {path.name: path for path in folder.iterdir()} | {"1_Pooling/config.json": b'{"word": 1}'}
    hub.store.create("org/below", files)
    checkpoint = Checkpoint(ways.find("hf://org/below"))
    assert cache(tmp_path / "home").count("config.json") == 1
    assert checkpoint.json("1_Pooling/config.json") == {"word": 1}
    assert cache(tmp_path / "home").count("config.json") == 2


def test_what_is_there_instead(hub: LoopbackHub, folder: Path) -> None:
    """A repository whose model lies in a folder, and one of pickles: the next address, and nothing fetched for it."""
    hub.store.create("org/above", {f"inner/{path.name}": path for path in folder.iterdir()})
    with pytest.raises(MissingFile, match="no config.json in this folder") as caught:
        loader.open_model("hf://org/above")
    assert places.shown(str(caught.value.hint)) == "there is one in hf://org/above/inner: give that folder"
    hub.store.create("org/pickles", {"config.json": folder / "config.json", "pytorch_model.bin": b"\x80\2" * 1000})
    with pytest.raises(PickleCheckpoint, match="only as 'pytorch_model.bin'"):
        loader.open_model("hf://org/pickles")
    assert not hub.ranges("pytorch_model.bin")


def test_a_folder_and_revisions(hub: LoopbackHub, folder: Path) -> None:
    """A branch, a commit, a pull request's reference; each is resolved to a commit, which is asked for once."""
    repository = hub.store.repositories[NAME]
    first = repository.references["main"]
    files = {f"inner/{path.name}": path for path in folder.iterdir()}
    second = repository.commit(files, branch="moved")
    repository.references["refs/pr/1"] = second
    for address in (f"hf://{NAME}@moved/inner", f"hf://{NAME}@{second}/inner", f"hf://{NAME}@refs/pr/1/inner"):
        with loader.open_model(address) as model:
            assert model.metadata["quantcli.source.commit"].data == second
    with loader.open_model(ADDRESS) as model:
        assert model.metadata["quantcli.source.commit"].data == first
    repository.commit(files)  # the main branch moves: this process stays with what it saw
    with loader.open_model(ADDRESS) as model:
        assert model.metadata["quantcli.source.commit"].data == first


def test_rows_out_of_order(hub: LoopbackHub, folder: Path) -> None:
    """Single rows are asked for alone; a tensor that is read against its order stays in the store."""
    with loader.open_model(ADDRESS) as far, loader.open_model(folder) as near:
        before = len(hub.log)
        for one, other in zip(far.tensors, near.tensors, strict=True):
            for row in range(one.rows - 1, -1, -(one.rows // 3 + 1)):
                assert (one.reader.read_rows(row, row + 1) == other.reader.read_rows(row, row + 1)).all()
        large = max(zip(far.tensors, near.tensors, strict=True), key=lambda pair: pair[0].rows * pair[0].columns)
        for start in range(large[0].rows - 64, -1, -64):
            rows = start, start + 64
            assert (large[0].reader.read_rows(*rows) == large[1].reader.read_rows(*rows)).all()
    assert len(hub.log) - before < 200


def test_a_store_that_is_too_small_grows(hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is read again and again, larger than the store, is fetched a few times, not every time."""
    monkeypatch.setattr(blocks, "BUDGET", 256 << 10)
    monkeypatch.setattr(blocks.Blocks.__init__, "__defaults__", (256 << 10, 8))
    with loader.open_model(ADDRESS) as model:
        tensor = max(model.tensors, key=lambda one: one.rows * one.columns)
        size = tensor.rows * tensor.columns * 2
        before = hub.sent()
        for _ in range(12):
            tensor.reader.read_rows(0, tensor.rows)
        assert hub.sent() - before <= 4 * size


# ---- what breaks and is mended


@pytest.mark.parametrize("free", [True, False], ids=["own connections", "the client's"])
def test_cut_connections(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: bool) -> None:
    """Ten connections that break, servers that are busy or slow, an address that is no longer good: the same bytes."""
    expected = converted(ADDRESS, tmp_path / "a")
    tree.forget()
    assert transport._is_free(hub.url)
    monkeypatch.setattr(transport, "_is_free", lambda location: free)
    hub.faults = [
        Fault("GET /files/.*model-00002", times=10, cut=5000),
        Fault("GET /files/.*model-00001", status=503),
        Fault("GET /files/.*model-00001", status=429, headers={"Retry-After": "0"}),
        Fault("GET /files/.*model-00001", status=403),
        Fault("GET /files/.*model-00001", stall=0.3),
        Fault("GET /api/models/", status=500),
        Fault("HEAD /org/tiny/resolve/.*model-00001", status=502),
    ]
    assert converted(ADDRESS, tmp_path / "b") == expected
    assert not any(fault.times for fault in hub.faults)


def test_a_cut_range_goes_on_where_it_broke(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults = [Fault("GET /files/.*model-00002", cut=1500)]
    loader.open_model(ADDRESS).close()
    assert hub.ranges("model-00002-of-00002.safetensors") == [(0, remote.HEAD), (1500, remote.HEAD)]


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


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault("GET /files/", times=99, status=503), Unreachable, "fails to answer"),
        (
            Fault("GET /files/.*safetensors", times=99, status=429, headers={"Retry-After": "0"}),
            Unreachable,
            "no more requests",
        ),
        (Fault("GET /files/.*safetensors", times=99, cut=0), Unreachable, "breaks|no connection"),
        (Fault("GET /files/.*safetensors", times=99, status=404), MissingFile, "lists this file and does not have it"),
        (Fault("GET /files/", times=99, status=403), NoAccess, "who asks"),
        (Fault("GET /files/.*safetensors", times=99, total=12345), BadAnswer, "and sends a part of 12345"),
        (Fault("GET /files/.*safetensors", times=99, whole=True), BadAnswer, "whole files where a part"),
        (Fault("GET /api/models/", times=99, status=500), Unreachable, "fails to answer"),
    ],
    ids=["503", "429", "cut", "404", "403", "length", "no ranges", "api"],
)
def test_broken_for_good(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, kind: type, message: str
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 3)
    hub.faults = [fault]
    refused(hub, kind, message, tmp_path)


def test_it_lies_about_a_length(hub: LoopbackHub, tmp_path: Path, folder: Path) -> None:
    """Listed, announced and sent have to agree."""
    name = "model-00002-of-00002.safetensors"
    repository = hub.store.repositories[NAME]
    repository.sizes[name] = (folder / name).stat().st_size + 10
    refused(hub, BadAnswer, "sends a part of", tmp_path)
    tree.forget()
    repository.sizes[name] = (folder / name).stat().st_size - 10
    refused(hub, BadAnswer, "sends a part of", tmp_path)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.model"])
def test_another_hash(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.store.repositories[NAME].hashes[name] = hashlib.sha256(b"something else").hexdigest()
    assert "again" in refused(hub, BadAnswer, "does not have the sha256", tmp_path)


@pytest.mark.parametrize("good", range(1, 9, 2))
def test_a_flipped_bit(hub: LoopbackHub, tmp_path: Path, good: int) -> None:
    """On the way, in the middle of the weights: found when all was read, and no file appears."""
    before = Fault("GET /files/.*model-00001", times=good)  # answers that are as they should be
    hub.faults = [before, Fault("GET /files/.*model-00001", flip=True)]
    refused(hub, BadAnswer, "does not have the sha256", tmp_path)


def test_the_sum_of_what_comes_in_disorder() -> None:
    data = bytes(range(256)) * 400
    held: list[int] = []
    made = sums.Sum(len(data), lambda start, stop: data[start:stop])
    for start in (20_000, 0, 60_000, 10_000, 30_000, 50_000, 40_000, 90_000, 70_000, 80_000, 100_000):
        made.offer(start, data[start : start + 10_000], partial(held.append, 1), partial(held.append, -1))
    assert made.complete and not sum(held)
    assert made.hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_sum_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gap is fetched; behind a large one nothing is kept."""
    data = bytes(range(256)) * 400
    monkeypatch.setattr(sums, "WAITING", 20_000)
    monkeypatch.setattr(sums, "GAP", 5_000)
    for first, complete in ((5_000, True), (6_000, False)):
        held: list[int] = []
        made = sums.Sum(len(data), lambda start, stop: data[start:stop])
        for start in range(first, len(data), 10_000):
            made.offer(start, data[start : start + 10_000], partial(held.append, 1), partial(held.append, -1))
        assert made.complete is complete and made.given_up is not complete
        assert not sum(held)


# ---- who may


@pytest.mark.parametrize(
    ("token", "message", "hint"),
    [
        (None, "owners, and there is no token", "ask for it at http"),
        (TOKEN, "owners, and the account of this token has none", "ask for it at http"),
    ],
)
def test_gated(
    hub: LoopbackHub, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str,
    hint: str,
) -> None:  # fmt: skip
    hub.store.tokens[TOKEN] = "somebody"
    hub.store.create("org/gated", folder, gated=True, reads=["hf_reader"])
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert hint in refused(hub, NoAccess, message, tmp_path, Path("hf://org/gated"))
    hub.store.tokens["hf_reader"] = "reader"
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    tree.forget()
    converted(Path("hf://org/gated"), tmp_path / "out")
    assert all(not one.authorized for one in hub.log if one.elsewhere), "the token stays with the hub"


def test_a_token_that_the_hub_does_not_know(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "hf auth login" in refused(hub, NoAccess, "refuses this token", tmp_path)


def test_nothing_there(hub: LoopbackHub, tmp_path: Path) -> None:
    assert "spelling" in refused(hub, MissingFile, "no such repository", tmp_path, Path("hf://org/none"))
    hint = refused(hub, MissingFile, "no such revision", tmp_path, Path(f"hf://{NAME}@none"))
    assert "main branch" in hint
    assert "leave it out" in refused(hub, MissingFile, "no such file or folder", tmp_path, Path(f"hf://{NAME}/none"))


def test_no_connection(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    assert "HF_HUB_OFFLINE=1" in refused(hub, Unreachable, "no connection to http://127.0.0.1:9", tmp_path)


def test_offline(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the cache, small files in it, all of it."""
    import huggingface_hub
    from huggingface_hub import constants

    expected = converted(ADDRESS, tmp_path / "a")
    tree.forget()
    asked = len(hub.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(hub, Unreachable, "stay offline", tmp_path)
    refused(hub, Unreachable, "stay offline", tmp_path, Path("hf://org/none"))
    assert len(hub.log) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.snapshot_download(NAME)
    asked = len(hub.log)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tree.forget()
    assert converted(ADDRESS, tmp_path / "b") == expected
    assert len(hub.log) == asked


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else found(name))
    with pytest.raises(MissingPackage) as caught:
        loader.open_model(ADDRESS)
    assert caught.value.hint == "pip install 'quantcli[hub]'"


# ---- what is typed


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf://org/name", "hf://org/name"),
        ("hf:/org/name/", "hf://org/name"),
        ("HF://org/name@v1.0/sub/dir", "hf://org/name@v1.0/sub/dir"),
        ("hf://gpt2", "hf://gpt2"),
        ("hf://org/name@refs/pr/3", "hf://org/name@refs/pr/3"),
        ("https://huggingface.co/org/name", "hf://org/name"),
        ("https:/huggingface.co/org/name/tree/main", "hf://org/name@main"),
        ("https://huggingface.co/org/name/tree/main/sub", "hf://org/name@main/sub"),
        ("https://huggingface.co/org/name/blob/main/a.gguf?download=true", "hf://org/name@main/a.gguf"),
        ("https://hf.co/org/name/resolve/refs/pr/1/a.gguf", "hf://org/name@refs/pr/1/a.gguf"),
    ],
)
def test_understood(text: str, meant: str) -> None:
    assert str(ways.WAYS[0].recognise(text)) == meant


@pytest.mark.parametrize(
    ("text", "kind", "message", "hint"),
    [
        ("hf:org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("huggingface.co/org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("huggingface://org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("hub://org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("hf://datasets/org/name", UnsupportedFile, "a data set of the hub", "hf://org/name"),
        ("https://huggingface.co/spaces/org/name", UnsupportedFile, "a space of the hub", "hf://org/name"),
        ("https://example.org/model.gguf", UnsupportedFile, "a web address", "hf://org/name"),
        ("hf://org/name@", UsageError, "no name of a revision", "hf://org/name@revision"),
        ("hf://org/../x", UsageError, "no name of a repository", "hf://org/name"),
        ("hf://org/name/../../x", UsageError, "no folder of a repository", "hf://org/name"),
        ("hf://", UsageError, "no name of a repository", "hf://org/name"),
    ],
)
def test_explained(text: str, kind: type[QuantcliError], message: str, hint: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        loader.open_model(text)
    assert hint in str(caught.value.hint)


def test_a_token_in_an_address_is_not_repeated() -> None:
    for text in (f"https://user:{TOKEN}@huggingface.co/org/name", f"hf:{TOKEN}@org/name", f"hf://org/name@/{TOKEN}"):
        with pytest.raises(QuantcliError) as caught:
            loader.open_model(text)
        assert TOKEN not in f"{caught.value} {caught.value.hint}"


def test_what_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain name suggests an address; a misspelt file of this machine, or one in a folder that is there, does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for text, meant in (
        ("org/name", "a repository of the hub is written hf://org/name"),
        ("org/name.gguf", None),
        ("models/name", None),
        ("name", None),
        ("a/b/c", None),
    ):
        with pytest.raises(MissingFile, match="no such file or folder") as caught:
            loader.open_model(text)
        assert caught.value.hint == meant


# ---- as a program


def test_command_line(hub: LoopbackHub, tmp_path: Path) -> None:
    """One line of what and where, one of what to do; nothing of the cache's folders, of tokens or signed addresses."""
    hub.store.tokens[TOKEN] = "somebody"
    environment = hub.environment(tmp_path / "home", TOKEN) | {
        "HF_DEBUG": "",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = quantcli("convert", f"hf://{NAME}", "-t", "Q4_K_M", "--json", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    [output] = json.loads(done.stdout)["outputs"]
    assert output["path"] == "tiny-Q4_K_M.gguf"
    hub.faults = [Fault("GET /files/.*model-00001", times=99, status=404)]
    failed = quantcli("convert", f"hf://{NAME}", "-t", "Q8_0", "--debug", cwd=tmp_path, **environment)
    assert failed.returncode == 1
    *_, what, hint = failed.stderr.splitlines()
    assert what == (
        f"error: hf://{NAME}/model-00001-of-00002.safetensors: the hub lists this file and does not have it"
    )
    assert hint.startswith("  the hub or something between contradicts itself: try again")
    everything = done.stdout + done.stderr + failed.stdout + failed.stderr
    assert TOKEN not in everything and _SECRET not in everything
    assert TOKEN.encode() not in (tmp_path / "tiny-Q4_K_M.gguf").read_bytes()
    assert not list(tmp_path.glob("*Q8_0*"))


def test_interrupted_while_the_hub_is_silent(hub: LoopbackHub, tmp_path: Path) -> None:
    """Whoever waits for bytes is woken when the source is closed."""
    model = loader.open_model(ADDRESS)
    hub.faults = [Fault("GET /files/", times=99, stall=5.0)]
    caught: list[BaseException] = []

    def read() -> None:
        try:
            tensor = max(model.tensors, key=lambda one: one.rows)
            tensor.reader.read_rows(0, tensor.rows)
        except QuantcliError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    model.close()
    thread.join(2.0)
    assert not thread.is_alive() and len(caught) == 1


def test_no_name_of_a_hub_file_leaves_its_folder(hub: LoopbackHub, folder: Path) -> None:
    """Names that the hub lists are not believed."""
    repository = hub.store.repositories[NAME]
    files = dict(repository.commits[repository.references["main"]].files)
    evil = {"../../evil.json": b"{}", "/etc/evil.json": b"{}", "a/../../evil.json": b"{}"}
    repository.commit({name: blob.path or blob.data for name, blob in files.items()} | evil)
    with loader.open_model(ADDRESS) as model:
        assert len(model.tensors) == 38
    assert not [one for one in hub.log if re.search("evil", one.path)]


def test_an_address_where_none_is_taken() -> None:
    """It is said as it was typed, and where addresses belong."""
    for kind in (MissingFile, OutputFailed):
        told = _in_their_words(kind("no such file", where="hf:/org/name"))
        assert told.where == "hf://org/name"
        assert "an address of the hub names a model that is read" in str(told.hint)
    assert _in_their_words(MissingFile("no such file", where="a/b")).hint is None
