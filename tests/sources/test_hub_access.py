"""Who may read from the hub: tokens, gated repositories, no connection, no package; and the whole program."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import threading
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from helpers.far_checkpoint import ADDRESS, NAME, TOKEN, checkpoint_folder, converted, hub_with_checkpoint, refused
from helpers.loopback_hub import _SECRET, Fault, LoopbackHub
from helpers.program import quantcli
from quantcli import loader
from quantcli.cli.frame import _in_their_words
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import MissingFile, MissingPackage, NoAccess, OutputFailed, QuantcliError, Unreachable, UsageError
from quantcli.sources.hub import client, tree

__all__ = ["checkpoint_folder", "hub_with_checkpoint"]  # pytest finds fixtures by these names


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


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EACCES, "to a folder that you may write to"),
        (errno.EROFS, "to a folder that you may write to"),
        (errno.ENOSPC, "free some space there, or set"),
        (errno.EDQUOT, "free some space there, or set"),
        (None, "to a folder that you may write to"),
    ],
)
def test_a_cache_that_takes_nothing(
    hub: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    number: int | None,
    hint: str,
    variable: str,
) -> None:
    """Not writable, full, a file (None): said with the folder and the variable that chooses it."""
    import huggingface_hub
    from huggingface_hub import constants, file_download

    def refuse(*given: object, **named: object) -> None:
        file_download._check_disk_space(1 << 62, tmp_path)
        raise OSError(number, os.strerror(number or 0))

    monkeypatch.setenv(variable, str(tmp_path))
    if number is None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
        monkeypatch.setattr(file_download.constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    else:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    found = refused(hub, OutputFailed, "cache cannot be written", tmp_path)
    assert hint in found and (variable if variable != "HF_HOME" else "HF_") in found
    assert not [one for one in recwarn if "disk space" in str(one.message)]


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


@pytest.mark.parametrize("verb", ["convert", "imatrix", "perplexity", "compare"])
def test_workers_cannot_read_from_the_hub(hub: LoopbackHub, root: Path, tmp_path: Path, verb: str) -> None:
    """Every verb that has --engine says so, and leaves nothing."""
    from quantcli.commands import compare, fleet, imatrix, perplexity

    prose, tiny, common = tmp_path / "home" / "prose.txt", tmp_path / "home" / "tiny.gguf", {"engine": "local"}
    prose.parent.mkdir(exist_ok=True)
    prose.write_text("one two three four five six seven eight nine ten. " * 40)
    common |= {"length": 64, "chunks": 2}
    if verb == "compare":
        convert.run(convert_request(source=root / "examples" / "tiny", types=["F16"], output=tiny))
    run = {
        "convert": lambda: fleet.run(convert_request(source=ADDRESS, types=["Q8_0"], split_max_size="1M"), "local"),
        "imatrix": lambda: imatrix.run(
            imatrix.ImatrixRequest(model=ADDRESS, text=prose, output=tmp_path / "out.gguf", **common)
        ),
        "perplexity": lambda: perplexity.run(perplexity.PerplexityRequest(model=ADDRESS, text=prose, **common)),
        "compare": lambda: compare.run(
            compare.CompareRequest(reference=ADDRESS, models=[tiny], texts=[prose], **common)
        ),
    }[verb]
    with pytest.raises(UsageError, match="not from the hub") as found:
        run()
    assert found.value.where == "--engine" and "download the checkpoint first" in str(found.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else found(name))
    with pytest.raises(MissingPackage) as caught:
        loader.open_model(ADDRESS)
    assert caught.value.hint == "pip install 'quantcli[hub]'"


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
