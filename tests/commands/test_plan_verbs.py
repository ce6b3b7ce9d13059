"""`quantcli plan`, `quantcli analyze` and `convert --max-kld` on the bundled model with little text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from helpers import program
from helpers.plans import little_text, request  # noqa: F401 - the fixture is used by its name
from helpers.schemas import require_valid
from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands import analyze, bounding, convert, plan
from quantcli.errors import OutputExists, TargetTooSmall, UsageError
from quantcli.ggml.tensor_types import by_name
from quantcli.plan import overrides

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def kept(root: Path, tmp_path_factory, little_text) -> Path:  # noqa: F811
    """A folder that knows what the types of the bundled model cost, and the plan that it was made for."""
    folder = tmp_path_factory.mktemp("verbs")
    asked = request(root, None, SizeTexts(like="Q4_K_M"), keep_statistics=folder / "statistics")
    plan.run(plan.PlanRequest(conversion=asked, output=folder / "plan.txt"))
    return folder


def test_the_file_of_types_makes_the_same_plan(root: Path, kept: Path, tmp_path: Path) -> None:
    asked = request(root, tmp_path / "x.gguf", SizeTexts(like="Q4_K_M"), keep_statistics=kept / "statistics")
    planned = convert.run(dataclasses.replace(asked, dry_run=True))["outputs"][0]
    again = convert_request(
        source=asked.source, types=("Q4_K_M",), tensor_type_file=kept / "plan.txt", allow_no_imatrix=True
    )
    made = convert.run(dataclasses.replace(again, dry_run=True))["outputs"][0]
    assert made["tensors"] == planned["tensors"]
    assert not made["fallbacks"]
    rules = overrides.parse_file(kept / "plan.txt")
    for entry in planned["tensors"]:
        matching = [rule.type.name for rule in rules if rule.matches(entry["name"])]
        assert matching == ([entry["type"]] if by_name(entry["type"]).quantized else [])


def test_a_plan_explains_itself(root: Path, kept: Path, capsys) -> None:
    asked = request(root, None, SizeTexts(like="Q4_K_M"), keep_statistics=kept / "statistics")
    found = plan.run(plan.PlanRequest(conversion=asked, explain=True))
    require_valid("plan", found)
    assert found["target"] == "--like Q4_K_M" and found["output"] is None and found["type"] == "Q4_K_M"
    shares = [one["share"] for one in found["tensors"] if one["share"] is not None]
    assert len(shares) == len(found["tensors"]) == 29 and abs(sum(shares) - 1) < 1e-9
    for one in found["tensors"]:
        assert one["loss"] == one["losses"][one["type"]] and one["loss"] >= 0
    with pytest.raises(OutputExists):
        plan.run(plan.PlanRequest(conversion=asked, output=kept / "plan.txt"))
    with pytest.raises(UsageError, match="made for a size"):
        plan.run(plan.PlanRequest(conversion=convert_request(source=asked.source, types=("Q4_0",))))


def test_larger_types_lose_less(root: Path, kept: Path) -> None:
    asked = request(root, None, SizeTexts(like="Q4_K_M"), keep_statistics=kept / "statistics")
    found = analyze.run(analyze.AnalyzeRequest(conversion=asked))
    require_valid("analyze", found)
    assert len(found["tensors"]) == 29
    for one in found["tensors"]:
        assert one["losses"]["Q2_K"] > one["losses"]["Q4_K"] > one["losses"]["Q6_K"] > 0
        assert one["peak"] > 1 and one["kurtosis"] > 1 and one["rms"] > 0
        matrix = one["name"].startswith("blk.")
        assert (one["kappa"] is not None) is matrix and (one["input_peak"] is not None) is matrix


def test_the_smallest_file_within_a_divergence(root: Path, kept: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bounding, "TOKENS", 512)
    monkeypatch.setattr(bounding, "ROUNDS", 5)
    sizes = []
    for most in (0.3, 0.06):
        size = SizeTexts(max_kld=most, candidates="k")
        asked = request(root, tmp_path / f"{most}.gguf", size, keep_statistics=kept / "statistics")
        found = convert.run(asked)["outputs"][0]
        assert (tmp_path / f"{most}.gguf").stat().st_size == found["bytes"]
        sizes.append(found["bytes"])
    assert sizes[0] < sizes[1]
    size = SizeTexts(max_kld=1e-6, candidates="q2_k")
    with pytest.raises(TargetTooSmall, match="no plan stays within"):
        convert.run(request(root, tmp_path / "x.gguf", size, keep_statistics=kept / "statistics"))
    assert not (tmp_path / "x.gguf").exists()


def test_the_program_takes_sizes(root: Path) -> None:
    """The command line itself: that it gets to what contradicts itself, without running a model."""
    tiny = root / "examples" / "tiny"
    for options, message in (
        (("--like", "Q4_K_M", "--target-bpw", "4"), "--target-bpw and --like exclude each other"),
        (("--like", "F16"), "F16 is no size to plan for"),
        (("--max-kld", "0.1", "--target-size", "1M"), "--target-size and --max-kld exclude each other"),
        (("--candidates", "k"), "Missing option '--type'"),
    ):
        done = program.quantcli("convert", tiny, *options)
        assert done.returncode and message in done.stderr
    assert "no type given" in program.quantcli("plan", tiny).stderr
