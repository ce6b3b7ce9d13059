"""`convert --quality` and `calibrate`, from the command's request to the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy
import pytest

from helpers.schemas import require_valid
from quantcli import container
from quantcli.calibration.folder import MANIFEST
from quantcli.calibration.quality import wish
from quantcli.cli.parse import convert_request
from quantcli.commands import calibrate, convert, verify
from quantcli.commands.convert import ConvertRequest
from quantcli.errors import BadStatistics, MissingFile, OutputExists, UnsupportedGraph, UsageError
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations

TOKENS = 8192  # the fewest


def request(root: Path, output: Path, quality: str = "good", **options: object) -> ConvertRequest:
    """A conversion of the bundled model with little text."""
    asked = convert_request(
        source=root / "examples" / "tiny", types=("Q4_0",), output=output, quality=quality, threads=2, **options
    )
    if asked.wish is None:
        return asked
    sampled = min(asked.wish.sampled, 1024)
    return dataclasses.replace(asked, wish=dataclasses.replace(asked.wish, tokens=TOKENS, sampled=sampled))


def tensor_bytes(path: Path) -> list[tuple[str, bytes]]:
    """Every tensor's name and content."""
    with open_model(path) as model:
        return [(tensor.name, bytes(tensor.reader.read_raw(0, tensor.rows))) for tensor in model.tensors]


def distance(root: Path, path: Path) -> float:
    """Mean squared difference of logits on tokens that nobody calibrated with."""
    ids = numpy.random.default_rng(9).integers(3, 2000, (4, 64)).astype(numpy.int32)
    found = []
    for source in (root / "examples" / "tiny", path):
        with open_model(source) as model:
            network = Network(model, make_operations("float", 1), length=64, kv_type="F32")
            found.append(network.forward(ids, network.new_cache(*ids.shape)))
    return float(numpy.square(found[0] - found[1]).mean())


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory) -> dict[str, Path]:
    """One file of every quality, the calibrated ones with their statistics kept."""
    folder = tmp_path_factory.mktemp("qualities")
    files = {name: folder / f"{name}.gguf" for name in ("fast", "good", "best")}
    for name, path in files.items():
        convert.run(request(root, path, name, **options_of(path)))
    return files


def options_of(path: Path) -> dict[str, object]:
    """Options of the file of a quality."""
    if path.stem == "fast":
        return {}
    return {"keep_statistics": path.with_name(f"{path.stem}-statistics"), "sampled_tokens": 1024}


def test_every_quality_has_the_size_of_its_plan_and_says_what_made_it(root: Path, made: dict[str, Path]) -> None:
    for name, path in made.items():
        planned = convert.run(
            dataclasses.replace(request(root, path, name, **options_of(path)), dry_run=True, force=True)
        )
        assert planned["outputs"][0]["bytes"] == path.stat().st_size
        assert verify.run([path])["ok"]
        metadata = container.read_header(path).metadata
        kept = {key: value.data for key, value in metadata.items() if key.startswith("quantcli.")}
        assert ("quantcli.quality" in kept) is (name != "fast")
        if name != "fast":
            assert kept["quantcli.quality"] == name and kept["quantcli.transforms"] == "awq"
            assert kept["quantcli.compensation"] == {"good": "gptq", "best": "sequential"}[name]
            assert kept["quantcli.calibration.tokens"] == TOKENS
            assert kept["quantcli.calibration.sampled_tokens"] == 1024
            assert len(kept["quantcli.calibration.corpus"]) == 64


def test_more_work_is_nearer_to_the_model(root: Path, made: dict[str, Path]) -> None:
    found = [distance(root, made[name]) for name in ("fast", "good", "best")]
    assert found[1] < found[0] and found[2] < found[0]


@pytest.mark.parametrize(("name", "isa"), [("good", "emu16"), ("best", "scalar")])
def test_kept_statistics_give_the_same_bytes_on_other_instruction_sets_and_threads(
    name: str, isa: str, root: Path, made: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("QUANTCLI_SIMD", isa)
    statistics = made[name].parent / f"{name}-statistics"
    asked = request(root, tmp_path / "again.gguf", name, statistics=statistics, sampled_tokens=1024)
    convert.run(dataclasses.replace(asked, threads=3))
    assert (tmp_path / "again.gguf").read_bytes() == made[name].read_bytes()


def test_the_result_lists_what_was_done_to_every_matrix(root: Path, tmp_path: Path) -> None:
    result = convert.run(request(root, tmp_path / "x.gguf"))
    output = result["outputs"][0]
    assert output["quality"] == "good"
    encoded = [t["name"] for t in output["tensors"] if t["type"] == "Q4_0" and t["name"].startswith("blk.")]
    assert sorted(one["name"] for one in output["compensated"]) == sorted(encoded)
    assert all(one["compensated"] <= one["plain"] for one in output["compensated"] if one["method"] == "compensated")


def test_calibrate_fills_a_folder_that_conversions_use(root: Path, tmp_path: Path, monkeypatch) -> None:
    asked = calibrate.CalibrateRequest(
        model=root / "examples" / "tiny", output=tmp_path / "stats", tokens=TOKENS, sampled=1024, threads=2
    )
    found = calibrate.run(asked)
    require_valid("calibrate", found)
    assert (found["tokens"], found["sampled_tokens"], found["layers"]) == (TOKENS, 1024, 4)
    with pytest.raises(OutputExists, match="is there already"):
        calibrate.run(asked)
    (tmp_path / "stats" / "layer-0002.safetensors").unlink()
    calibrate.run(dataclasses.replace(asked, resume=True))

    convert.run(request(root, tmp_path / "plain.gguf", sampled_tokens=1024))
    with monkeypatch.context() as patched:
        patched.setattr("quantcli.calibration.float_stream.layers", None)  # nothing is gathered again
        patched.setattr("quantcli.calibration.tokens.sample", None)
        convert.run(request(root, tmp_path / "known.gguf", statistics=tmp_path / "stats"))
    known, plain = (container.read_header(tmp_path / name) for name in ("known.gguf", "plain.gguf"))
    assert set(known.metadata) - set(plain.metadata) == {"quantcli.statistics.sha256"}
    assert tensor_bytes(tmp_path / "known.gguf") == tensor_bytes(tmp_path / "plain.gguf")
    importance = tmp_path / "stats" / "imatrix.gguf"
    convert.run(convert_request(source=asked.model, types=("IQ2_XS",), imatrix=importance, output=tmp_path / "i.gguf"))


def test_a_folder_of_another_text_is_refused(root: Path, made: dict[str, Path], tmp_path: Path) -> None:
    statistics = made["good"].parent / "good-statistics"
    text = tmp_path / "mine.txt"
    text.write_text("Another text. " * 4000)
    with pytest.raises(BadStatistics, match="corpus"):
        convert.run(request(root, tmp_path / "x.gguf", statistics=statistics, calibration=[text]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFile):
        convert.run(request(root, tmp_path / "x.gguf", statistics=tmp_path / "empty"))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / MANIFEST).write_text("{}")
    with pytest.raises(BadStatistics):
        convert.run(request(root, tmp_path / "x.gguf", statistics=damaged))
    assert not (tmp_path / "x.gguf").exists()


def test_a_place_that_is_taken_is_found_before_the_work(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("quantcli.calibration.tokens.gather", None)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(BadStatistics, match="something else"):
        convert.run(request(root, tmp_path / "x.gguf", keep_statistics=tmp_path / "mine"))
    with pytest.raises(BadStatistics, match="something else"):
        calibrate.run(calibrate.CalibrateRequest(model=root / "examples" / "tiny", output=tmp_path / "mine"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "worst"}, "no quality 'worst'"),
        ({"quality": "good", "transforms": ["twist"]}, "no transform 'twist'"),
        ({"calibration": [Path(__file__)]}, "--calibration is for methods that calibrate"),
        ({"sampled_tokens": 5}, "--sampled-tokens is for methods that calibrate"),
    ],
)
def test_contradictions_are_errors_of_usage(options: dict[str, object], message: str, root: Path) -> None:
    with pytest.raises(UsageError, match=message):
        convert_request(source=root / "examples" / "tiny", types=("Q4_0",), **options)


def test_a_name_overrides_its_part_of_a_quality() -> None:
    assert wish(None, None, (), (), None) is None
    assert wish("best", "gptq", (), (), None).method == "gptq"
    assert wish("best", "hqq", ("equalize",), (), None).method is None
    assert wish("good", None, ("equalize", "awq"), (), None).transforms == ("equalize", "awq")
    assert wish(None, "gptq", (), (), None).transforms == ()
    assert wish("best", None, (), (), 0).sampled == 0 and wish("best", None, (), (), None).sampled > 100_000


def test_a_model_that_the_runner_does_not_know_says_what_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers import oracles

    def refuse(*given: object) -> None:
        raise UnsupportedGraph("it is not run", where="x")

    monkeypatch.setattr("quantcli.commands.compensating.calibration_network", refuse)
    asked = convert_request(source=oracles.folder("llama3"), types=("Q8_0",), output=tmp_path / "x", quality="good")
    with pytest.raises(UnsupportedGraph) as caught:
        convert.run(asked)
    assert "fast" in (caught.value.hint or "")
    assert not list(tmp_path.iterdir())


def test_an_encoder_is_calibrated_with_text_alone(tmp_path: Path) -> None:
    from helpers import oracles

    output = tmp_path / "x.gguf"
    convert.run(convert_request(source=oracles.folder("bert"), types=("Q8_0",), output=output, quality="best"))
    assert container.read_header(output).metadata["quantcli.calibration.sampled_tokens"].data == 0
