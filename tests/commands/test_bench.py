"""`quantcli bench`: what it measures is there, positive and consistent; wrong sizes of models are refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from helpers.schemas import require_valid
from quantcli.cli import parse_parameters
from quantcli.commands import bench
from quantcli.errors import UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.runner.products import Products


@pytest.fixture
def quick(monkeypatch):
    """Little memory and a moment per measurement."""
    monkeypatch.setattr(bench, "SLICE", 0.0)
    monkeypatch.setattr(bench, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(bench, "PRODUCT_TYPES", ("Q8_0", "Q4_K"))


def test_everything_is_measured(quick):
    result = bench.run([1e9, 7e9], 2)
    require_valid("bench", json.loads(json.dumps(result)))
    assert result["threads"] == 2 and result["instruction_set"] == kernels.isa() and result["cpu"]
    assert all(value > 0 for part in ("peak", "bandwidth") for value in result[part].values())
    assert {row["type"] for row in result["encoders"]} == {
        row.name for row in tensor_types.BY_ID.values() if row.quantized and kernels.can_encode(row.id, "best")
    }
    assert all(0 < row["ns_per_weight"] < 1e6 for row in result["encoders"])
    assert [(row["parameters"], row["type"]) for row in result["expected"]] == [
        (size, name) for size in (1e9, 7e9) for name in ("Q8_0", "Q4_K")
    ]


def test_what_is_expected_follows_from_what_was_measured(quick):
    result = bench.run([2e9], 1)
    for row, speed in zip(result["expected"], result["products"], strict=True):
        assert math.isclose(row["gigabytes"], 2 * speed["bits_per_weight"] / 8)
        assert math.isclose(row["generated"] * row["gigabytes"], speed["one_token"])
        assert math.isclose(row["prompt"] * 2 * 2e9, speed["prompt"] * 1e9)


def test_the_peak_counts_operations_and_not_calls():
    """Twice the rounds are twice the operations."""
    pool = Products("q8", 1).pool
    for mode in ("Q8", "INT16", "FLOAT"):
        kind = getattr(pool.lib, f"QC_ACTIVATIONS_{mode}")
        assert pool.lib.qc_peak(pool.isa, kind, 20) == 2 * pool.lib.qc_peak(pool.isa, kind, 10) > 0


@pytest.mark.parametrize(
    "text,number", [("8B", 8e9), ("1.1b", 1.1e9), ("600M", 6e8), (" 7000000 ", 7e6), (".5T", 5e11)]
)
def test_sizes_are_read_as_people_write_them(text, number):
    assert parse_parameters.parse([text]) == [number]


@pytest.mark.parametrize("text", ["", "B", "8 B", "-8B", "8G", "1e9", "0", "nan", "inf", "8B8", "9999T", "8,0B", "٨B"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_parameters.parse([text])
    assert "quantcli bench --parameters 8B" in str(caught.value.hint)


def test_on_the_command_line(root):
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", "bench", "--parameters", "0.1", "--json"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no model" in json.loads(done.stdout)["error"]["message"]
