"""What a dry run says of time, memory and disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from quantcli.cli.parse import convert_request
from quantcli.commands import convert, estimating
from quantcli.plan import costs
from quantcli.report import tables, texts

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"


def job(*types: str, **more) -> convert.Job:
    return convert.prepare(convert_request(source=TINY, types=types, dry_run=True, **more))


def test_a_dry_run_says_what_it_takes(tmp_path: Path) -> None:
    result = convert.run(
        convert_request(source=TINY, types=("Q4_K_M", "Q8_0"), dry_run=True, output=f"{tmp_path}/out/", threads=2)
    )
    found = result["estimate"]
    assert found["disk_bytes"] == sum(one["bytes"] for one in result["outputs"])
    assert found["seconds"] >= found["encoding_seconds"] > 0
    assert found["memory_bytes"] > 50e6 and found["disk_free_bytes"] > 0 and not found["calibration"]
    note = tables.estimate_note(found, 2)
    assert note.startswith("estimate: about ") and "on 2 threads" in note and "disk 5.01 MB" in note
    assert "too little" in tables.estimate_note({**found, "disk_free_bytes": 1000}, 2)
    assert not (tmp_path / "out").exists()


def test_it_follows_the_types_and_the_table_where_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "ENCODING", 0.0)  # nothing is measured: the table as it stands
    monkeypatch.setattr(costs, "NANOSECONDS", {"Q8_0": 1000.0, "Q4_0": 3000.0, "F32": 0.0})
    seconds = []
    for types in (("Q8_0",), ("Q4_0",), ("Q8_0", "Q4_0")):
        wanted = job(*types, pure=True, threads=1)
        seconds.append(estimating.estimate(wanted)["encoding_seconds"])
        wanted.close()
    assert seconds[0] == pytest.approx(2.95, abs=0.2)  # 2.9 million weights
    assert seconds[1] == pytest.approx(3 * seconds[0], rel=0.05)
    assert seconds[2] == pytest.approx(seconds[0] + seconds[1], rel=0.05)


def test_what_is_measured_moves_what_is_not() -> None:
    assert estimating._ratio({"Q4_K": 2 * costs.NANOSECONDS["Q4_K"]}, {}) == pytest.approx(2)
    assert estimating._ratio({}, {}) == 1


def test_the_time_left_follows_the_cost_not_the_bytes() -> None:
    share = costs.share_done([(100, 1), (100, 0), (300, 9)])
    assert [share(done) for done in (0, 50, 100, 200, 350, 500, 600)] == pytest.approx([0, 0.05, 0.1, 0.1, 0.55, 1, 1])
    assert costs.share_done([])(0) == 0
    assert texts.work_left(time.monotonic() - 10, 0.5, 0.25) == "20.0 s left"
    assert texts.work_left(time.monotonic(), 0.25, 0.25) == ""


def test_a_source_that_is_no_file_here_is_read_by_rows() -> None:
    wanted = job("Q8_0")
    try:
        model = wanted.parts[0].model
        model.weight_files = ["hf://owner/name/model.safetensors"]
        speed = estimating._reading(model, 0.1)
        assert speed is not None and speed > 1e5
    finally:
        wanted.close()
