"""What a conversion warns of, and that --strict makes each of it an error before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import oracles
from quantcli import container
from quantcli.chat import sandbox
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import UsageError, WarningsRefused
from quantcli.statistics import imatrix

BROKEN = "a\n{% for x %}"
Options = dict[str, Any]


def written(folder: Path, text: str) -> Path:
    path = folder / "template.jinja"
    path.write_text(text)
    return path


def partial_importance(folder: Path) -> Path:
    """An importance matrix of one tensor."""
    path, name = folder / "matrix.gguf", "blk.0.ffn_up.weight"
    sums, counts = {name: numpy.ones((1, 256), numpy.float32)}, {name: numpy.ones(1, numpy.float32)}
    path.write_bytes(imatrix.to_gguf_bytes(imatrix.Importance("matrix.gguf", sums, counts, ["text"], 1)))
    return path


def broken_source(folder: Path) -> Path:
    """A GGUF whose own template does not compile."""
    path = folder / "source.gguf"
    convert.run(request("tiny", "Q8_0", output=path, metadata=[f"tokenizer.chat_template={BROKEN}"]))
    return path


CASES: dict[str, tuple[Callable[[Path], Options], str]] = {
    "metadata": (lambda f: {"metadata": ["tokenizer.chat_template={{ 1 | nope }}"]}, "No filter named 'nope'"),
    "named": (lambda f: {"metadata": ["tokenizer.chat_template.rag={% nope %}"]}, "chat_template.rag: the chat"),
    "gguf": (lambda f: {"source": broken_source(f), "allow_requantize": True}, "fails in line 2: expected token 'in'"),
    "importance": (lambda f: {"imatrix": partial_importance(f)}, "not in the importance matrix"),
    "method": (lambda f: {"method": "hqq", "types": ["IQ4_NL"]}, "method hqq does not take"),
    "rows": (lambda f: {"source": oracles.folder("llama3"), "types": ["Q4_K_M"]}, "fall back"),
}


def request(source: str | Path, *types: str, **options: Any) -> convert.ConvertRequest:
    tiny = Path(__file__).parents[2] / "examples" / "tiny"
    return convert_request(source=tiny if source == "tiny" else source, types=types, **options)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dry_run", [True, False])
def test_every_warning_is_an_error_with_strict(name: str, dry_run: bool, tmp_path: Path, capsys) -> None:
    from quantcli.report.terminal import Reporter

    make, message = CASES[name]
    options = make(tmp_path)
    source, types = options.pop("source", "tiny"), options.pop("types", ["Q4_0"])
    output = tmp_path / "out.gguf"
    with pytest.raises(WarningsRefused, match=message):
        convert.run(request(source, *types, output=output, strict=True, dry_run=dry_run, **options))
    assert not output.exists()
    convert.run(request(source, *types, output=output, dry_run=dry_run, **options), Reporter())
    assert message in capsys.readouterr().err


def test_what_is_right_is_no_warning(tmp_path: Path) -> None:
    template = written(tmp_path, "{% generation %}{{ unknown() }}{% break %}{% endgeneration %}")
    setting = f"tokenizer.chat_template={template.read_text()}"
    result = convert.run(request("tiny", "Q8_0", output=tmp_path / "out.gguf", dry_run=True, metadata=[setting]))
    assert [text.split(":")[0] for text in result["warnings"]] == ["tokenizer.chat_template"]  # break without a loop
    template.write_text(
        "{% for m in messages %}{% generation %}{{ unknown() }}{% endgeneration %}{% break %}{% endfor %}"
    )
    convert.run(request("tiny", "Q8_0", output=tmp_path / "out.gguf", strict=True, chat_template=template))
    stored = container.read_header(tmp_path / "out.gguf").metadata["tokenizer.chat_template"].data
    assert stored == template.read_text()


def test_a_template_of_ones_own_is_refused_where_it_is_broken(tmp_path: Path) -> None:
    template = written(tmp_path, BROKEN)
    with pytest.raises(UsageError, match="fails in line 2: expected token 'in'") as caught:
        convert.run(request("tiny", "Q8_0", output=tmp_path / "out.gguf", chat_template=template))
    assert caught.value.where == "--chat-template" and not (tmp_path / "out.gguf").exists()


def test_without_jinja_nothing_is_checked_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: False)
    options: Options = {"chat_template": written(tmp_path, BROKEN), "dry_run": True}
    assert "not checked" in convert.run(request("tiny", "Q8_0", **options))["warnings"][0]
    assert not convert.run(request("tiny", "Q8_0", dry_run=True))["warnings"]
