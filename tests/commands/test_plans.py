"""`convert --like`, `--target-size`, `--target-bpw`: the types for a size, from the command's request to the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from helpers.plans import little_text, request  # noqa: F401 - the fixture is used by its name
from quantcli import container
from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands import convert, verify
from quantcli.errors import OutputExists, TargetTooSmall, UnknownType, UsageError
from quantcli.ggml.tensor_types import by_name

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def kept(root: Path, tmp_path_factory, little_text) -> Path:  # noqa: F811
    """A folder that knows what the types of the bundled model cost."""
    folder = tmp_path_factory.mktemp("plans")
    convert.run(request(root, folder / "x.gguf", SizeTexts(like="Q4_K_M"), keep_statistics=folder / "statistics"))
    return folder / "statistics"


@pytest.mark.parametrize("like", ["Q4_K_M", "Q3_K_M", "Q2_K", "Q6_K"])
def test_a_plan_is_as_large_as_a_recipe_and_never_larger(like: str, root: Path, kept: Path, tmp_path: Path) -> None:
    stock = convert.run(
        convert_request(
            source=root / "examples" / "tiny", types=(like,), output=tmp_path / "stock.gguf", allow_no_imatrix=True
        )
    )
    asked = request(root, tmp_path / "x.gguf", SizeTexts(like=like), keep_statistics=kept)
    planned = convert.run(dataclasses.replace(asked, dry_run=True))["outputs"][0]
    made = convert.run(asked)["outputs"][0]
    size = (tmp_path / "x.gguf").stat().st_size
    assert stock["outputs"][0]["bytes"] * 0.995 <= size <= stock["outputs"][0]["bytes"]
    assert planned["bytes"] == made["bytes"] == size
    assert planned["tensors"] == made["tensors"] and made["type"] == like
    assert verify.run([tmp_path / "x.gguf"])["ok"]
    assert container.read_header(tmp_path / "x.gguf").metadata["quantcli.plan"].data == f"--like {like}"


def test_bits_and_bytes(root: Path, kept: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_bits = convert.run(request(root, None, SizeTexts(target_bpw=5.25), keep_statistics=kept))["outputs"][0]
    assert by_bits["path"].endswith("-5.25bpw.gguf") and Path(by_bits["path"]).is_file()
    assert 5.25 * 0.995 <= by_bits["bpw"] <= 5.25
    by_bytes = convert.run(request(root, None, SizeTexts(target_size="1.9M"), keep_statistics=kept))["outputs"][0]
    assert 1_900_000 * 0.995 <= by_bytes["bytes"] <= 1_900_000
    with pytest.raises(OutputExists):
        convert.run(request(root, None, SizeTexts(target_bpw=5.25), keep_statistics=kept))
    with pytest.raises(TargetTooSmall, match="larger than that"):
        convert.run(request(root, tmp_path / "y.gguf", SizeTexts(target_size="500K"), keep_statistics=kept))
    assert not (tmp_path / "y.gguf").exists()


def test_what_the_user_pins_stays(root: Path, kept: Path, tmp_path: Path) -> None:
    size = SizeTexts(
        target_bpw=6.5,
        candidates="k,legacy",
        at_least=["attn_v=q6_k"],
        keep=[r"blk\.0\.ffn_down"],
        same_type=["ffn_(gate|up)"],
    )
    asked = request(root, tmp_path / "x.gguf", size, tensor_types=["attn_q=q4_1"], keep_statistics=kept)
    found = convert.run(dataclasses.replace(asked, dry_run=True))["outputs"][0]
    types = {entry["name"]: entry["type"] for entry in found["tensors"]}
    for layer in range(4):
        assert types[f"blk.{layer}.attn_q.weight"] == "Q4_1"
        assert by_name(types[f"blk.{layer}.attn_v.weight"]).bpw >= by_name("Q6_K").bpw
        assert types[f"blk.{layer}.ffn_gate.weight"] == types[f"blk.{layer}.ffn_up.weight"]
    assert types["blk.0.ffn_down.weight"] in ("BF16", "F16", "F32")
    used = {name for name in types.values() if by_name(name).quantized}
    assert used <= {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}


def test_planned_types_drive_compensation(root: Path, kept: Path, tmp_path: Path) -> None:
    asked = request(root, tmp_path / "x.gguf", SizeTexts(like="Q3_K_M"), quality="good")
    output = convert.run(asked)["outputs"][0]
    types = {entry["name"]: entry["type"] for entry in output["tensors"]}
    assert output["quality"] == "good" and len({one["type"] for one in output["compensated"]}) > 1
    assert all(types[one["name"]] == one["type"] for one in output["compensated"])
    assert (tmp_path / "x.gguf").stat().st_size == output["bytes"]


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (SizeTexts(like="Q4_K_M"), {"types": ["Q4_K_M"]}, "-t and --like exclude each other"),
        (SizeTexts(like="Q4_K_M", target_bpw=4), {}, "--target-bpw and --like exclude each other"),
        (SizeTexts(like="Q4_K_M"), {"pure": True}, "--like and --pure exclude each other"),
        (SizeTexts(candidates="k"), {"types": ["Q4_K_M"]}, "--candidates is for plans of a size"),
        (SizeTexts(like="BF16"), {}, "BF16 is no size to plan for"),
        (SizeTexts(target_size="4X"), {}, "'4X' is no size"),
        (SizeTexts(), {}, "no type given"),
    ],
)
def test_contradictions_are_errors_of_usage(size: SizeTexts, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert_request(source=Path("x"), size=size, **options)


def test_unknown_candidates() -> None:
    with pytest.raises(UnknownType, match="'Q4_K_M' is no type"):
        convert_request(source=Path("x"), size=SizeTexts(like="Q4_K_M", candidates="q4_k_m"))


@pytest.mark.parametrize(
    ("text", "size"), [("4.0G", 4 * 10**9), ("700M", 7 * 10**8), ("3.5Gi", 3_758_096_384), ("12", 12), ("1.5kb", 1500)]
)
def test_amounts(text: str, size: int) -> None:
    asked = convert_request(source=Path("x"), size=SizeTexts(target_size=text))
    assert asked.sizing is not None and asked.sizing.target.bytes == size
