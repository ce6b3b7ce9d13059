"""Families against what llama.cpp's converter wrote for tiny checkpoints, and against broken or odd ones."""

from __future__ import annotations

import hashlib
import json
import math

import numpy
import pytest

from helpers import differences as known
from helpers import oracles
from helpers.checkpoints import stored
from helpers.conversions import plain
from quantcli import architectures, families
from quantcli.families import bind, load, names
from quantcli.families.metadata import name_parts, size_label, title
from quantcli.model import ModelTensor
from quantcli.sources.checkpoint import Checkpoint

IGNORED = ("general.", "quantcli.")


@pytest.mark.parametrize("name", oracles.names("*"))
def test_converts_as_llama_cpp(name: str) -> None:
    folder = oracles.folder(name)
    expected = json.loads((folder / "expected.json").read_text())
    model = families.load_checkpoint(Checkpoint(folder))
    wanted = {tensor["name"]: tensor for tensor in expected["tensors"]}
    assert {tensor.name for tensor in model.tensors} == set(wanted)
    for tensor in model.tensors:
        row = wanted[tensor.name]
        kind = tensor.type.name if tensor.type.name in ("F32", "MXFP4") else expected["outtype"]
        assert ([*tensor.shape], kind) == (row["shape"], row["type"]), tensor.name
        if tensor.name.endswith(known.parts(name, "tensor")):
            continue
        for step in (3, tensor.rows):
            assert hashlib.sha256(stored(tensor, kind, step)).hexdigest() == row["sha256"], tensor.name
    left = known.parts(name, "entry")
    for key, row in expected["metadata"].items():
        if not key.startswith(IGNORED) and key not in left:
            found = plain(model.metadata[key])
            assert found == {field: row[field] for field in found}, key
    extra = {key for key in model.metadata if key not in expected["metadata"] and not key.startswith(IGNORED)}
    assert not extra


@pytest.mark.parametrize("name", sorted({*oracles.names("*")} - {"granite-moe"}))  # whose experts are stacked
def test_expected_tensors_are_those_of_the_checkpoint(name: str) -> None:
    checkpoint = Checkpoint(oracles.folder(name))
    family, facts, _ = load.read_config(checkpoint, None)
    stored = {
        names.respelled(names.plain(tensor.name, family.prefixes)[0], family.spellings): tensor.shape
        for tensor in checkpoint.logical_tensors
    }
    expected = bind.expected(family, facts)
    assert len(expected) > 9 and [one for one in expected if stored.get(one[0]) != one[1]] == []


def test_state_matrix_is_minus_exp() -> None:
    checkpoint = Checkpoint(oracles.folder("mamba"))
    tensor = next(t for t in families.load_checkpoint(checkpoint).tensors if t.name == "blk.1.ssm_a")
    source = checkpoint.tensors["backbone.layers.1.mixer.A_log"].read_rows(0, 128)
    wanted = [[numpy.float32(-math.exp(x)) for x in row] for row in source.tolist()]
    assert not tensor.raw and numpy.array_equal(tensor.reader.read_rows(0, 128), wanted)


@pytest.mark.parametrize("name", oracles.MUST)
def test_order_and_size_label(name: str) -> None:
    """The order counts for --keep-split; the label is what the naming convention says."""
    folder = oracles.folder(name)
    expected = json.loads((folder / "expected.json").read_text())
    model = families.load_checkpoint(Checkpoint(folder))
    assert [tensor.name for tensor in model.tensors] == [tensor["name"] for tensor in expected["tensors"]]
    assert model.metadata["general.size_label"].data == expected["metadata"]["general.size_label"]["value"]
    assert model.metadata["general.name"].data == expected["metadata"]["general.name"]["value"]


def test_default_float_and_provenance() -> None:
    model = families.load_checkpoint(Checkpoint(oracles.folder("llama-quirks")))
    assert model.default_float.name == "F16" and model.kind == "checkpoint" and model.name == "llama-quirks"
    digest = hashlib.sha256((oracles.folder("llama-quirks") / "config.json").read_bytes()).hexdigest()
    assert model.metadata["quantcli.source.sha256.config.json"].data == digest
    assert not [v for v in model.metadata.values() if isinstance(v.data, str) and str(oracles.place()) in v.data]
    three = families.load_checkpoint(Checkpoint(oracles.folder("llama3")))
    assert three.shards == 3 and {tensor.shard for tensor in three.tensors} == {0, 1, 2}
    assert three.metadata["general.sampling.temp"].data == pytest.approx(0.6)


# ---- the table of families ---------------------------------------------------------------------------------------


def test_registry_is_consistent() -> None:
    table = families.registry()
    assert len(table) >= 12
    classes = [name for family in table.values() for name in family.hf_architectures]
    kinds = [name for family in table.values() for name in family.model_types]
    assert len(set(classes)) == len(classes) and len(set(kinds)) == len(kinds)
    for family in table.values():
        assert architectures.find(family.gguf_arch).graph, "how it computes is declared"
        assert family.vocab.architecture == family.gguf_arch
        keys = [entry.key for entry in family.metadata]
        assert len(set(keys)) == len(keys), family.name
        assert {entry.fact for entry in family.metadata} <= {*family.facts, *family.numbers}, family.name


# ---- names --------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert title("llama-3.1-8b-instruct-v0.1") == "Llama 3.1 8b Instruct v0.1"
    assert title("SmolLM2-135M") == "SmolLM2 135M"
    assert name_parts("SmolLM2-135M-Instruct") == {"general.basename": "SmolLM2", "general.finetune": "Instruct"}
    assert name_parts("Mixtral-8x7B-v0.1") == {
        "general.version": "v0.1", "general.basename": "Mixtral", "general.finetune": "",
    }  # fmt: skip
    assert name_parts("my-model") == {}


def test_size_label() -> None:
    def tensor(name: str, *shape: int) -> ModelTensor:
        return ModelTensor(name, shape, None, None, False, None, "")

    assert size_label([tensor("token_embd.weight", 1000, 134515)]) == "135M"
    assert size_label([tensor("x.weight", 10**6, 2400)]) == "2.4B"
    assert size_label([tensor("a.weight", 10**9), tensor("blk.0.ffn_up_exps.weight", 10**6, 6000, 8)]) == "8x7.0B"
