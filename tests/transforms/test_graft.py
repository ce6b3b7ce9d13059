"""Grafted tensors are the donor's bytes; what does not fit is refused by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantcli import container
from quantcli.commands import graft as verb
from quantcli.commands import verify
from quantcli.container import u32
from quantcli.errors import (
    MetadataMismatch,
    MissingTensors,
    OutputIsInput,
    QuantcliError,
    ShapeMismatch,
    UnknownTensors,
    VocabularyMismatch,
)
from quantcli.loader import open_model
from quantcli.model import Model
from quantcli.transforms.graft import graft


def content(path: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor."""
    with open_model(path) as model:
        return {one.name: (one.type.name, bytes(one.reader.read_raw(0, one.rows))) for one in model.tensors}


def test_bytes_come_over(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    ours, theirs = content(tiny_files["Q4_K_M"]), content(tiny_files["Q8_0"])
    output = tmp_path / "c.gguf"
    request = verb.GraftRequest(
        model=tiny_files["Q4_K_M"], donor=tiny_files["Q8_0"], tensors=r"token_embd|^BLK\.[12]\.attn_", output=output
    )
    result = verb.run(request)
    names = {row["name"] for row in result["grafted"]}
    assert names == {name for name in ours if re.search(r"token_embd|^blk\.[12]\.attn_", name)}
    assert content(output) == {name: (theirs if name in names else ours)[name] for name in ours}
    assert verify.run([output])["ok"]
    with open_model(output) as model, open_model(tiny_files["Q4_K_M"]) as before:
        digest = hashlib.sha256(b"".join(theirs[name][1] for name in sorted(names))).hexdigest()
        told = {key: value.data for key, value in model.metadata.items() if ".graft.0." in key}
        kept = {key: value.data for key, value in model.metadata.items() if key.startswith(("llama.", "general."))}
        assert {key.rpartition(".")[2]: value for key, value in told.items()} == {
            "donor": "Tiny", "pattern": request.tensors.lower(), "tensors": len(names), "sha256": digest,
        }  # fmt: skip
        assert kept == {key: before.metadata[key].data for key in kept}


def test_a_file_may_be_grafted_again(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    for model, tensors, output in (
        (tiny_files["Q4_K_M"], "token_embd", first),
        (first, "output_norm", second),
    ):
        verb.run(verb.GraftRequest(model=model, donor=tiny_files["Q8_0"], tensors=tensors, output=output))
    with open_model(second) as model:
        patterns = [model.metadata[f"quantcli.graft.{number}.pattern"].data for number in (0, 1)]
    assert patterns == ["token_embd", "output_norm"]


def test_a_dry_run_writes_nothing(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "c.gguf"
    request = verb.GraftRequest(
        model=tiny_files["Q2_K"], donor=tiny_files["Q8_0"], tensors="token_embd", output=output, dry_run=True
    )
    planned = verb.run(request)["output"]["bytes"]
    assert not output.exists()
    verb.run(replace(request, dry_run=False))
    assert output.stat().st_size == planned


def test_outputs_are_no_inputs(tiny_files: dict[str, Path]) -> None:
    for output in (tiny_files["Q2_K"], tiny_files["Q8_0"]):
        request = verb.GraftRequest(
            model=tiny_files["Q2_K"], donor=tiny_files["Q8_0"], tensors="token_embd", output=output, force=True
        )
        with pytest.raises(OutputIsInput):
            verb.run(request)


# ---- what does not fit


def other_entry(key: str, value: Any) -> Callable[[Model], Model]:
    return lambda donor: replace(donor, metadata={**donor.metadata, key: value})


def other_tokens(donor: Model) -> Model:
    tokens = [*donor.metadata["tokenizer.ggml.tokens"].data]
    return other_entry("tokenizer.ggml.tokens", container.strings([*tokens[:-1], "new"]))(donor)


def narrower(donor: Model) -> Model:
    tensors = [replace(one, shape=(one.shape[0], *[n // 2 for n in one.shape[1:]])) for one in donor.tensors]
    return replace(donor, tensors=tensors)


def more_blocks(donor: Model, name: str = "llama") -> Model:
    """A donor with one block more, that predicts further tokens."""
    last = [one for one in donor.tensors if one.name.startswith("blk.3.")]
    added = [replace(one, name=one.name.replace("blk.3.", "blk.4.")) for one in last]
    entries = {f"{name}.block_count": u32(5), f"{name}.nextn_predict_layers": u32(1)}
    return replace(donor, tensors=[*donor.tensors, *added], metadata={**donor.metadata, **entries})


@pytest.mark.parametrize(
    ("change", "pattern", "error", "says"),
    [
        (lambda donor: donor, "nothing", UnknownTensors, "'nothing'"),
        (lambda donor: replace(donor, architecture="qwen3"), "token_embd", MetadataMismatch, "qwen3"),
        (other_entry("llama.rope.freq_base", container.f32(5.0)), "output_norm", MetadataMismatch, "rope.freq_base"),
        (other_entry("llama.block_count", u32(5)), "output_norm", MetadataMismatch, "llama.block_count is 5"),
        (other_entry("llama.attention.scale", container.f32(1)), "attn_q", MetadataMismatch, "absent"),
        (other_tokens, "token_embd", VocabularyMismatch, "token_embd.weight"),
        (narrower, "ffn_up", ShapeMismatch, "has the shape"),
        (more_blocks, r"blk\.4\.ffn", MissingTensors, "blk.4.attn_k.weight"),
    ],
)  # fmt: skip
def test_refusals(
    tiny_files: dict[str, Path], change: Any, pattern: str, error: type[QuantcliError], says: str
) -> None:
    with open_model(tiny_files["Q4_K_M"]) as model, open_model(tiny_files["Q8_0"]) as donor:
        with pytest.raises(error) as caught:
            graft(model, change(donor), re.compile(pattern))
        assert says in str(caught.value) and caught.value.hint
        assert str(tiny_files["Q8_0"]) in str(caught.value.where)


def test_other_tokens_matter_for_rows_of_tokens_alone(tiny_files: dict[str, Path]) -> None:
    with open_model(tiny_files["Q4_K_M"]) as model, open_model(tiny_files["Q8_0"]) as donor:
        assert graft(model, other_tokens(donor), re.compile("ffn_up")).replaced


def test_new_blocks_bring_their_counts(tiny_files: dict[str, Path]) -> None:
    with open_model(tiny_files["Q4_K_M"]) as model, open_model(tiny_files["Q8_0"]) as donor:
        found = graft(model, more_blocks(donor), re.compile(r"^blk\.4\."))
        counts = {key: found.model.metadata[f"llama.{key}"].data for key in ("block_count", "nextn_predict_layers")}
    assert counts == {"block_count": 5, "nextn_predict_layers": 1}
    assert len(found.added) == 9 and not found.replaced
    assert json.dumps(sorted(one.name for one in found.added)).count("blk.4.") == 9
