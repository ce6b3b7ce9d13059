"""`convert --html` and `analyze --html` on the bundled model with little text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers import program
from helpers.plans import little_text, request  # noqa: F401 - the fixture is used by its name
from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands import analyze, compensating, convert, reporting
from quantcli.errors import OutputExists, OutputFailed, OutputIsInput, UnsupportedGraph, UsageError
from quantcli.report.reported import MADE, SEARCH, STOCK

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory, little_text):  # noqa: F811
    """(result, folder): a plan, calibrated, with its page and statistics."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reporting, "TOKENS", 1024)
        asked = request(
            root,
            folder / "x.gguf",
            SizeTexts(like="Q4_K_M"),
            quality="good",
            keep_statistics=folder / "statistics",
            html=folder / "x.html",
        )
        return convert.run(asked), folder


class Checker(HTMLParser):
    """Whether every element is closed; what is shown, and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.shown = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs) -> None:
        self.loaded += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href", "onload")]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


def checked(path: Path) -> Checker:
    """The page, which is well-formed and loads nothing."""
    text = path.read_text(encoding="utf-8")
    found = Checker(text)
    assert not found.open and not found.loaded and "@import" not in text and "url(" not in text
    return found


def test_a_page_says_what_was_made_and_what_the_stock_recipe_is(made) -> None:
    result, folder = made
    report = result["report"]
    kinds = [one["kind"] for one in report["files"]]
    assert kinds.count(MADE) == kinds.count(SEARCH) == 1 and kinds.count(STOCK) == 3
    assert report["unmeasured"] is None and report["tokens"] == 1024
    by_name = {one["name"]: one for one in report["files"]}
    own, stock = by_name["x"], by_name["Q4_K_M"]
    assert own["bytes"] == (folder / "x.gguf").stat().st_size <= stock["bytes"] + 4096
    assert own["measured"]["kld"]["mean"] < stock["measured"]["kld"]["mean"]
    assert all(one["measured"]["kld"]["p999"] >= one["measured"]["kld"]["mean"] > 0 for one in report["files"])
    page = checked(folder / "x.html")
    for text in ("Size against divergence", "By language", "What each stage gained", "Layer by layer", "99.9 %"):
        assert text in page.shown
    assert f"{own['measured']['kld']['mean']:.5f}" in page.shown
    json.dumps(result)


def test_languages_are_shares_of_the_same_predictions(made) -> None:
    report = made[0]["report"]
    scored = sum(part["scored"] for part in report["parts"])
    for number, one in enumerate(report["files"]):
        whole = sum(part["kld"][number] * part["scored"] for part in report["parts"]) / scored
        assert one["measured"]["scored"] == scored and whole == pytest.approx(one["measured"]["kld"]["mean"], rel=1e-4)


def test_the_map_shows_every_type_and_the_shares_are_one(made) -> None:
    result, folder = made
    (output,) = result["report"]["outputs"]
    types = {tensor["name"]: tensor["type"] for tensor in result["outputs"][0]["tensors"]}
    assert all(types[one["name"]] == one["type"] for one in output["tensors"])
    assert sum(one["share"] for one in output["tensors"]) == pytest.approx(1)
    text = (folder / "x.html").read_text(encoding="utf-8")
    for one in output["tensors"]:
        assert f'title="{one["name"]}: {one["type"]},' in text
    sizes = [float(size) for size in re.findall(r"font(?:-size)?:\s*(\d+)px", text)]
    assert sizes and min(sizes) >= 11


def test_a_model_that_cannot_run_has_a_page_of_sizes(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*unused: object) -> None:
        raise UnsupportedGraph("cannot be run", where="x")

    monkeypatch.setattr(compensating, "calibration_network", refuse)
    asked = convert_request(
        source=root / "examples" / "tiny",
        types=("Q4_K_M", "Q6_K"),
        output=tmp_path,
        allow_no_imatrix=True,
        html=tmp_path / "x.html",
    )
    report = convert.run(asked)["report"]
    assert "cannot be run" in report["unmeasured"] and not report["parts"]
    assert {"Q4_K_M", "Q6_K", "Q5_K_S", "Q8_0"} <= {one["name"] for one in report["files"] if one["kind"] == STOCK}
    assert not any("measured" in one for one in report["files"])
    assert "Nothing was measured" in checked(tmp_path / "x.html").shown
    assert (tmp_path / "tiny-Q6_K.gguf").is_file()


def test_a_page_is_refused_before_any_work(root: Path, made, tmp_path: Path) -> None:
    tiny = root / "examples" / "tiny"
    _, folder = made

    def asked(html: Path, **options: object) -> None:
        convert.run(convert_request(source=tiny, types=("Q8_0",), output=tmp_path / "y.gguf", html=html, **options))

    with pytest.raises(OutputExists):
        asked(folder / "x.html")
    with pytest.raises(OutputIsInput):
        asked(tiny / "config.json", force=True)
    with pytest.raises(OutputFailed, match="folder does not exist"):
        asked(tmp_path / "none" / "x.html")
    with pytest.raises(UsageError, match="same file"):
        asked(tmp_path / "y.gguf")
    with pytest.raises(UsageError, match="--dry-run writes none"):
        asked(tmp_path / "y.html", dry_run=True)
    assert not list(tmp_path.iterdir())
    sizing = request(root, None, SizeTexts(like="Q4_K_M"), keep_statistics=folder / "statistics")
    with pytest.raises(OutputExists):
        analyze.run(analyze.AnalyzeRequest(conversion=sizing, html=folder / "x.html"))
    done = program.quantcli("convert", tiny, "-t", "F16", "--mmproj-only", "--html", tmp_path / "x.html")
    assert done.returncode and "--html is for language models" in done.stderr


def test_what_analyze_finds(root: Path, made, tmp_path: Path) -> None:
    _, folder = made
    asked = request(root, None, SizeTexts(like="Q4_K_M"), keep_statistics=folder / "statistics")
    found = analyze.run(analyze.AnalyzeRequest(conversion=asked, html=tmp_path / "a.html"))
    seen = [one for one in found["tensors"] if one["observers"]]
    assert len(seen) == 28 and found["probed"] == "Q3_K"
    for one in seen:
        ranges = one["observers"]
        assert one["blocks"] < ranges["weighted"] <= ranges["mse"] * 1.05 and ranges["weighted"] <= ranges["min-max"]
        assert 0 < one["qsur"] < 3 and one["formula"] > 0
    assert all(value is None or -1 <= value <= 1 for value in found["correlations"].values())
    assert found["correlations"]["HAWQ's formula with the divergence"] is not None
    page = checked(tmp_path / "a.html")
    assert "Outliers and QSUR" in page.shown and "percentile" in page.shown
