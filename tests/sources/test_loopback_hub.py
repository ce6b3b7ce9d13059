"""The loopback hub answers the real client as the hub does: reading, refusing, uploading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.hub_routes import PART_BYTES
from helpers.loopback_hub import Fault, LoopbackHub

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import CommitOperationDelete, HfApi, errors, hf_hub_download, snapshot_download  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
CONFIG = '{"architectures": ["LlamaForCausalLM"]}'
WEIGHTS = bytes(range(256)) * 5000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as started:
        started.use(monkeypatch, tmp_path / "home")
        started.store.create("org/name", {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/a.json": "{}"})
        yield started


def test_information(hub: LoopbackHub) -> None:
    info = HfApi().model_info("org/name", files_metadata=True)
    assert info.sha == hub.store.repositories["org/name"].references["main"]
    sizes = {one.rfilename: one.size for one in info.siblings or ()}
    assert sizes == {"config.json": len(CONFIG), "model.safetensors": len(WEIGHTS), "sub/a.json": 2}
    assert [one.path for one in HfApi().list_repo_tree("org/name")] == ["sub", "config.json", "model.safetensors"]
    [found] = HfApi().get_paths_info("org/name", ["model.safetensors"])
    assert found.lfs is not None and found.lfs.size == len(WEIGHTS)


def test_download(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = Path(snapshot_download("org/name"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "sub/a.json").read_text() == "{}"
    assert folder.is_relative_to(tmp_path / "home")
    assert all(not one.authorized for one in hub.log if one.elsewhere)


def test_a_cut_download_is_tried_again(hub: LoopbackHub) -> None:
    hub.faults = [Fault("GET /files/", cut=1000)]
    assert Path(hf_hub_download("org/name", "model.safetensors")).read_bytes() == WEIGHTS
    assert [one.sent for one in hub.log if one.elsewhere] == [1000, len(WEIGHTS)]


@pytest.mark.parametrize(
    ("name", "revision", "token", "error"),
    [
        ("org/none", None, None, errors.RepositoryNotFoundError),
        ("org/name", "none", None, errors.RevisionNotFoundError),
        ("org/gated", None, None, errors.GatedRepoError),
        ("org/gated", None, "hf_test_token", errors.GatedRepoError),
        ("org/gated", None, "hf_reader", None),
        ("org/private", None, "hf_test_token", errors.RepositoryNotFoundError),
        ("org/name", None, "hf_wrong", errors.HfHubHTTPError),
    ],
)
def test_refusals(hub: LoopbackHub, name: str, revision: str, token: str, error: type[Exception] | None) -> None:
    hub.store.tokens["hf_reader"] = "reader"
    hub.store.create("org/gated", {"config.json": CONFIG}, gated=True, reads=["hf_reader"])
    hub.store.create("org/private", {"config.json": CONFIG}, private=True, reads=["hf_reader"])
    if error is None:
        assert Path(hf_hub_download(name, "config.json", revision=revision, token=token)).read_text() == CONFIG
        return
    with pytest.raises(error) as caught:
        url = huggingface_hub.hf_hub_url(name, "config.json", revision=revision)
        huggingface_hub.get_hf_file_metadata(url, token=token or False)
    assert isinstance(caught.value, error)


def test_upload(hub: LoopbackHub, tmp_path: Path) -> None:
    """Small files in the commit, large ones before it, whole or in parts; what is there already is not sent again."""
    api = HfApi(token="hf_test_token")
    assert api.whoami()["name"] == "org"
    api.create_repo("org/made", private=True)
    api.create_repo("org/made", exist_ok=True)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Made\n")
    (folder / "small-Q8_0.gguf").write_bytes(b"GGUF" + bytes(1000))
    (folder / "large-Q8_0.gguf").write_bytes(b"GGUF" * (PART_BYTES // 4 + 1000))
    commit = api.upload_folder(repo_id="org/made", folder_path=folder, commit_message="Files")
    files = hub.store.repositories["org/made"].commits[commit.oid].files
    assert {name: files[name].read() for name in files if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    puts = [one.path for one in hub.log if one.method == "PUT"]
    assert len(puts) == 3  # one for the small file, two for the large one
    (folder / "README.md").write_text("# Made anew\n")
    api.upload_folder(repo_id="org/made", folder_path=folder)
    assert [one.path for one in hub.log if one.method == "PUT"] == puts
    api.create_commit("org/made", [CommitOperationDelete("small-Q8_0.gguf")], commit_message="Less")
    assert "small-Q8_0.gguf" not in api.list_repo_files("org/made")


def test_upload_without_rights(hub: LoopbackHub) -> None:
    with pytest.raises(errors.HfHubHTTPError, match="403"):
        HfApi(token="hf_test_token").create_repo("other/made")
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        HfApi(token="hf_wrong").create_repo("org/made")


def test_an_upload_that_fails_once(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults = [Fault("PUT /upload/", status=500)]
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    api = HfApi(token="hf_test_token")
    api.upload_file(path_or_fileobj=path, path_in_repo="x.gguf", repo_id="org/name")
    assert "x.gguf" in api.list_repo_files("org/name")
