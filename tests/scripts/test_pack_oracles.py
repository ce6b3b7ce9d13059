"""The packed oracles are those of the oracle folder, byte for byte, and small."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest

from helpers import normals, oracles


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pack", sorted(path.name for path in oracles.PACKS.glob("arch*")))
def test_packs_hold_the_oracle_folder(shared: Path, pack: str) -> None:
    for name in oracles.names(pack):
        assert contents(oracles.folder(name)) == contents(shared / pack / name), name


def test_all_of_the_first_folder_are_packed() -> None:
    assert len(oracles.names("arch")) == 36 and {*oracles.MUST} <= {*oracles.names("arch")}
    assert len(oracles.names("*")) == len({*oracles.names("*")}), "a name is in one pack"
    assert sum(path.stat().st_size for path in oracles.PACKS.rglob("*") if path.is_file()) < 6e6


def test_numbers_of_a_seed() -> None:
    """The mean, the spread and the tails of a normal distribution; a prefix does not depend on what follows."""
    drawn = normals.normals(2859405032, 100_000)
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01 and 4 < abs(drawn).max() < 6
    assert numpy.array_equal(normals.normals(2859405032, 48), drawn[:48])
    assert not numpy.array_equal(normals.normals(2859405033, 48), drawn[:48])


def test_weights_that_differ_are_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "normals", lambda seed, count: normals.normals(seed ^ 1, count))
    with pytest.raises(ValueError, match=re.escape("model.safetensors does not come back")):
        oracles.unpack("granite", tmp_path)


def test_what_is_packed_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "config.json").write_text("{}")
    weights = oracles.as_stored(normals.normals(5, 1600) * numpy.float32(0.5), "BF16").tobytes()
    (source / "a.safetensors").write_bytes(b"head" + weights[:-2] + b"??")
    draw = oracles.Draw(4, 1600, "BF16", 5, 0, 0.5, 0.0)
    monkeypatch.setattr(oracles, "PACKS", tmp_path)
    oracles.pack(source, tmp_path / "own" / "x.tar.xz", {"a.safetensors": [draw]})
    assert (tmp_path / "own" / "x.tar.xz").stat().st_size < 1000
    assert contents(oracles.unpack("x", tmp_path / "target")) == contents(source)
