"""What is read from the hub: the bytes of a folder, each once, and headers alone where these are enough."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from helpers.far_checkpoint import ADDRESS, NAME, cache, checkpoint_folder, converted, hub_with_checkpoint, weights
from helpers.loopback_hub import LoopbackHub
from quantcli import container, loader, places
from quantcli.cli.parse import convert_request
from quantcli.commands import check, convert, inspect
from quantcli.commands.job import ConvertRequest
from quantcli.errors import MissingFile, PickleCheckpoint
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import snap
from quantcli.methods.seam import Matrix
from quantcli.plan import recipes
from quantcli.report.terminal import Reporter
from quantcli.sources import ways
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.hub import blocks, remote, sums, tree

__all__ = ["checkpoint_folder", "hub_with_checkpoint"]  # pytest finds fixtures by these names


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


def test_nobody_waits_for_sampled_rows(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an encoder looks at before it begins is asked for by those who read ahead, not by those who encode."""
    threads: list[str] = []
    original = snap.sample

    def sample(matrix: Matrix, tensor_type: TensorType) -> tuple[int, int]:
        threads.append(threading.current_thread().name)
        return original(matrix, tensor_type)

    monkeypatch.setattr(snap, "sample", sample)
    converted(ADDRESS, tmp_path / "out", "Q8_0", "Q4_0")
    assert len(threads) > 10 and all(name.startswith("quantcli-ahead") for name in threads)


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
    notes.clear()
    reporter = Reporter(quiet=True)
    reporter.note = notes.append  # type: ignore[method-assign]
    asked = convert_request(
        source=ADDRESS, types=["Q8_0"], output=f"{tmp_path / 'parts'}/", split_max_size="1M", part="2/2"
    )
    convert.run(asked, reporter)
    assert any("of 2 files held against the hub's; the others were read in part" in one for one in notes)


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
