"""Connections that break, servers that lie, bytes that change on the way: mended, or one error and no file."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from helpers.far_checkpoint import ADDRESS, NAME, checkpoint_folder, converted, hub_with_checkpoint, refused
from helpers.loopback_hub import Fault, LoopbackHub
from quantcli import loader
from quantcli.errors import BadAnswer, MissingFile, NoAccess, Unreachable
from quantcli.sources.hub import client, remote, sums, transport, tree

__all__ = ["checkpoint_folder", "hub_with_checkpoint"]  # pytest finds fixtures by these names


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
