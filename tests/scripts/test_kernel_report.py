"""The benchmark of the kernels: bars are judged right, page and plot are well formed, a run without a peer works."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest


@pytest.fixture(scope="module")
def report(root):
    sys.path.insert(0, str(root / "scripts"))
    import kernel_report

    sys.path.pop(0)
    return kernel_report


def result(report, ours: float) -> dict:
    """Every searched type with ggml at 120 ns and ours at ``ours``, best twice as slow."""
    encode = [
        {
            "type": name,
            "importance": True,
            "rows": 16,
            "same_bytes": True,
            "measured": True,
            "ggml": {"median": 120.0, "min": 110.0},
            "ours": {"ggml avx2": {"median": ours, "min": ours}, "best avx2": {"median": 2 * ours, "min": ours}},
        }
        for name in report.SEARCHED
    ]
    made = {
        "date": "2030-01-02",
        "cpu": "Test <CPU> & Co",
        "machine": "x86_64",
        "rounds": 3,
        "isas": ["avx2"],
        "ggml_measured": True,
        "encode": encode,
        "decode": [{"type": "Q8_0", "ours": {"avx2": {"median": 0.4, "min": 0.3}}}],
    }
    return made | {"bars": report.bars(made)}


def test_bars_are_met_or_missed_by_name(report):
    fast = result(report, 3.0)  # 40x and 20x
    assert all(bar["met"] for bar in fast["bars"]) and len(fast["bars"]) == 7
    slow = result(report, 11.0)  # 10.9x and 5.5x
    verdicts = {(bar["search"], bar["bar"]): bar for bar in slow["bars"]}
    assert not verdicts["ggml", 12.0]["met"] and set(verdicts["ggml", 12.0]["missed_by"]) == {
        "Q2_K",
        "Q4_K",
        "Q5_K",
        "Q4_1",
        "Q5_1",
    }
    assert verdicts["ggml", 8.0]["met"] and not verdicts["best", 16.0]["met"]
    assert verdicts["best", 16.0]["reached"] == pytest.approx(120 / 22)


def test_a_part_of_the_types_never_meets_a_bar(report):
    part = result(report, 3.0)
    part["encode"] = part["encode"][:2]
    assert not any(bar["met"] for bar in report.bars(part))
    assert any("incomplete" in line for line in report.bar_lines(part | {"bars": report.bars(part)}))


def test_means_of_every_instruction_set(report):
    made = result(report, 3.0)
    made["encode"][0]["ours"]["best avx2"]["median"] *= 2.0**18  # of 18 types: the mean halves
    found = report.mean_lines(made)
    assert found[0].endswith("18 types: 40.0x; of their fastest calls 36.7x")
    assert found[1].startswith("best  avx2: ") and "10.0x; of their fastest calls 36.7x" in found[1]


def test_page_and_plot(report):
    made = result(report, 3.0)
    page = report.markdown(made)
    assert "2030-01-02" in page and "40.0x" in page and "Q8_0" in page
    drawing = ElementTree.fromstring(report.plot(made))
    labels = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert set(report.SEARCHED) <= set(labels) and "ggml" in labels


@pytest.mark.skipif(sys.platform == "win32", reason="the kernels are not built there")
def test_a_quick_run_without_the_peer_takes_the_recorded_figures(root):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/bench_kernels.py",
            "--quick",
            "--json",
            "--rounds",
            "1",
            "--types",
            "Q4_0,Q8_0",
            "--isa",
            "scalar",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    kinds = [(row["type"], row["importance"]) for row in measured["encode"]]
    assert kinds == [("Q4_0", False), ("Q4_0", True), ("Q8_0", False)]
    if not measured["ggml_measured"]:
        assert measured["encode"][1]["ggml"]["median"] == 38.71 and not measured["encode"][1]["measured"]
