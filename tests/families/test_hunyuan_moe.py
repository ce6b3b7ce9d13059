"""Hunyuan A13B: what its class adds to the dense one, on a checkpoint made of the dense oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors import numpy as safetensors

from helpers import oracles
from quantcli.errors import BadConfig
from quantcli.loader import open_models
from quantcli.runner import description

MOE = {
    "architectures": ["HunYuanMoEV1ForCausalLM"], "model_type": "hunyuan_v1_moe", "num_experts": 4, "moe_topk": [2, 2],
    "moe_intermediate_size": [32, 32], "num_shared_expert": [1, 1],
}  # fmt: skip
HIDDEN, WIDTH, EXPERTS = 64, 32, 4


def checkpoint(folder: Path, **changes: Any) -> Path:
    """The dense model with its MLP as shared expert, and routed ones beside it."""
    source = oracles.folder("hunyuan-dense")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | MOE | changes))
    with open_models(source) as models:
        names = [tensor.origin.split(": ")[-1] for tensor in models.text.tensors]
        shapes = [tuple(reversed(tensor.shape)) for tensor in models.text.tensors]
    tensors = dict(zip((name.replace(".mlp.", ".mlp.shared_mlp.") for name in names), shapes, strict=True))
    for layer in range(2):
        block = f"model.layers.{layer}.mlp."
        tensors[f"{block}gate.wg.weight"] = (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            tensors |= {f"{block}experts.{expert}.{kind}_proj.weight": (WIDTH, HIDDEN) for kind in ("gate", "up")}
            tensors[f"{block}experts.{expert}.down_proj.weight"] = (HIDDEN, WIDTH)
    safetensors.save_file(
        {name: numpy.ones(shape, numpy.float32) for name, shape in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def test_experts_and_their_numbers(tmp_path: Path) -> None:
    with open_models(checkpoint(tmp_path / "a13b")) as models:
        model = models.text
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    assert shapes["blk.1.ffn_gate_exps.weight"] == (HIDDEN, WIDTH, EXPERTS)
    assert shapes["blk.0.ffn_down_exps.weight"] == (WIDTH, HIDDEN, EXPERTS)
    assert shapes["blk.0.ffn_gate_inp.weight"] == (HIDDEN, EXPERTS)
    assert shapes["blk.0.ffn_up_shexp.weight"] == (HIDDEN, 96)
    wanted = {
        "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32, "expert_shared_count": 1,
        "expert_shared_feed_forward_length": 96, "context_length": 262144, "rope.scaling.type": "none",
    }  # fmt: skip
    assert {key: model.metadata[f"hunyuan-moe.{key}"].data for key in wanted} == wanted
    description.check(model.architecture, model.metadata, shapes, model.name)  # the runner takes it


@pytest.mark.parametrize("value", [[2, 1], [], [True, True], "2", [0, 0], [9999, 9999]])
def test_numbers_that_differ_between_layers(tmp_path: Path, value: object) -> None:
    with pytest.raises(BadConfig, match="moe_topk"):
        open_models(checkpoint(tmp_path / "odd", moe_topk=value))
