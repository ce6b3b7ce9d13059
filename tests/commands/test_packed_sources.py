"""Whole packed checkpoints through `convert`: what is copied, what is decoded, and the bytes of the exact values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from helpers import packers
from helpers.checkpoints import changed, read_tensors, write_tensors
from helpers.program import quantcli
from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, graft, verify
from quantcli.errors import MissingTensors
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.sources.gguf import open_gguf

Make = Callable[[int, int, int], packers.Packed]  # rows, columns, seed
MADE: dict[str, Make] = {
    "fp8": lambda rows, columns, seed: packers.fp8(rows, columns, (128, 128), seed=seed),
    "gptq": lambda rows, columns, seed: packers.gptq(rows, columns, 32, seed=seed),
    "awq": lambda rows, columns, seed: packers.awq(rows, columns, 64, seed=seed),
    "w4a16": lambda rows, columns, seed: packers.packed_integers(rows, columns, 64, zero=True, seed=seed),
    "nf4": lambda rows, columns, seed: packers.bnb4(rows, columns, seed=seed),
    "bitnet": lambda rows, columns, seed: packers.bitnet(rows, columns, seed=seed),
    "nvfp4": lambda rows, columns, seed: packers.nvfp4(rows, columns, seed=seed),
}


def checkpoints(folder: Path, make: Make) -> tuple[Path, Path]:
    """A model whose projections are packed, and the same one with the exact values in float32."""
    packed, plain = (Path(changed("llama-k256", folder / kind).folder) for kind in ("packed", "plain"))
    tensors, values, settings = read_tensors(packed), read_tensors(plain), {}
    for number, name in enumerate([name for name in tensors if name.endswith("_proj.weight")]):
        _, (rows, columns), _ = tensors.pop(name)
        made = make(rows, columns, number)
        settings, stem = made.settings, name.removesuffix(".weight")
        tensors |= {key.replace(packers.BASE, stem): part for key, part in made.tensors.items()}
        (exact,) = made.values.values()
        values[name] = packers.entry(exact, "F32")
    write_tensors(packed, tensors)
    write_tensors(plain, values)
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return packed, plain


def written(path: Path) -> dict[str, tuple[str, bytes]]:
    with open_gguf(path) as model:
        return {t.name: (t.type.name, bytes(t.reader.read_raw(0, t.rows))) for t in model.tensors}


@pytest.mark.parametrize("name", MADE)
def test_the_bytes_of_the_exact_values(name: str, tmp_path: Path) -> None:
    """Two types from one read are what the unpacked float32 checkpoint gives."""
    found, wanted = tmp_path / "found", tmp_path / "wanted"
    for source, target in zip(checkpoints(tmp_path, MADE[name]), (found, wanted), strict=True):
        target.mkdir()
        convert.run(convert_request(source=source, types=["Q4_K_M", "Q8_0"], output=target, threads=2))
    for path in sorted(found.iterdir()):
        assert written(path) == written(wanted / path.name)


def test_4_bit_floats_are_copied_or_decoded(tmp_path: Path) -> None:
    """In one job: BF16 keeps the blocks and their factors; Q4_0 has neither, and says that it rounds again."""
    packed, _ = checkpoints(tmp_path, MADE["nvfp4"])
    result = convert.run(convert_request(source=packed, types=["BF16", "Q4_0"], output=tmp_path / "out/", force=True))
    floats, quantized = (written(Path(output["path"])) for output in result["outputs"])
    factors = {name for name in floats if name.endswith((".scale", ".input_scale"))}
    blocks = {name for name, (kind, _) in floats.items() if kind == "NVFP4"}
    assert len(factors) == 2 * len(blocks) > 0 and set(quantized) == set(floats) - factors
    assert {quantized[name][0] for name in blocks} <= {"Q4_0", "Q4_1"}
    assert any("NVFP4 in the checkpoint and are rounded again for Q4_0" in note for note in result["notes"])
    assert numpy.frombuffer(floats["blk.0.attn_q.scale"][1], numpy.float32) == numpy.float32(0.00169)
    path = Path(result["outputs"][0]["path"])
    with open_gguf(path) as model:  # a file of such blocks is a source whose values have the factor in them
        tensor = next(t for t in model.tensors if t.name == "blk.0.attn_q.weight")
        assert tensor.type is BY_NAME["NVFP4"] and tensor.decoded is not None
        plain = tensor.reader.read_rows(0, 4) * numpy.float32(0.00169)
        assert numpy.array_equal(tensor.decoded.reader.read_rows(0, 4), plain)
        assert not any(t.beside or t.decoded for t in model.plain().tensors if t.name.endswith("scale"))


def test_a_broken_scale_ends_the_command(tmp_path: Path) -> None:
    """Exit status 1, one error that names the tensor, and no file."""
    packed, _ = checkpoints(tmp_path, MADE["gptq"])
    tensors = read_tensors(packed)
    name = next(name for name in tensors if name.endswith("v_proj.scales"))
    dtype, shape, data = tensors[name]
    tensors[name] = dtype, shape, numpy.full(len(data) // 2, numpy.nan, numpy.float16).tobytes()
    write_tensors(packed, tensors)
    done = quantcli("convert", packed, "-t", "Q4_0", "-o", tmp_path / "x.gguf")
    assert done.returncode == 1 and name in done.stderr and "NaN" in done.stderr
    assert not list(tmp_path.glob("*.gguf*"))


WIDE = "W4A16_NVFP4"
DOWN, ATTENTION = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"quant_algo": "NVFP4"}, []),
        ({"quant_algo": WIDE}, ["attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up"]),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": {DOWN: {"quant_algo": WIDE}}}, ["ffn_down"]),
        ({"quant_algo": WIDE, "quantized_layers": {ATTENTION: {"quant_algo": "NVFP4"}}},
         ["ffn_down", "ffn_gate", "ffn_up"]),
        ({"quant_algo": WIDE, "quantized_layers": {"model": 4, ATTENTION: "x"}}, []),
    ],
)  # fmt: skip
def test_matrices_whose_inputs_keep_16_bits_are_listed(said: dict, wanted: list[str], tmp_path: Path) -> None:
    """As llama.cpp's converter does: names, and false for each; not where the values were decoded."""
    packed, _ = checkpoints(tmp_path, MADE["nvfp4"])
    path = packed / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "modelopt", **said}
    path.write_text(json.dumps(config))
    found = {}
    for kind in ("BF16", "Q8_0"):
        convert.run(convert_request(source=packed, types=(kind,), output=tmp_path / f"{kind}.gguf"))
        found[kind] = container.read_header(tmp_path / f"{kind}.gguf").metadata
    names, flags = "general.tensor_extra.name", "general.tensor_extra.prec_a4"
    assert names not in found["Q8_0"] and flags not in found["Q8_0"] and (names in found["BF16"]) == bool(wanted)
    if wanted:
        layers = {name.split(".")[1] for name in found["BF16"][names].data}
        assert sorted(found["BF16"][names].data) == list(found["BF16"][names].data)
        assert {name.split(".")[2] for name in found["BF16"][names].data} == set(wanted) and "0" in layers
        assert list(found["BF16"][flags].data) == [False] * len(found["BF16"][names].data)


def test_grafted_blocks_keep_their_factors(tmp_path: Path) -> None:
    """Blocks of NVFP4 mean nothing without the factor beside them, and other weights are not multiplied by it."""
    files = {}
    for kind, source in zip(("packed", "plain"), checkpoints(tmp_path, MADE["nvfp4"]), strict=True):
        if kind == "packed":
            config = json.loads((source / "config.json").read_text())
            config["quantization_config"]["quant_algo"] = WIDE
            (source / "config.json").write_text(json.dumps(config))
        files[kind] = tmp_path / f"{kind}.gguf"
        convert.run(convert_request(source=source, types=("F32",), output=files[kind]))
    extra = "general.tensor_extra.name"
    listed = set(container.read_header(files["packed"]).metadata[extra].data)
    for kind, other in (("packed", "plain"), ("plain", "packed")):
        output = tmp_path / f"into-{kind}.gguf"
        pattern = r"^blk\.0\.ffn_down\.weight$"
        graft.run(graft.GraftRequest(model=files[kind], donor=files[other], tensors=pattern, output=output))
        with open_model(output) as model, open_model(files[other]) as donor:
            found = {one.name: one for one in model.tensors}
            values = [
                (one.decoded or one).reader.read_rows(0, one.rows)
                for one in (found["blk.0.ffn_down.weight"], *donor.tensors)
                if one.name == "blk.0.ffn_down.weight"
            ]
            assert numpy.array_equal(*values)
            assert ("blk.0.ffn_down.scale" in found) == (other == "packed") == ("blk.0.ffn_down.input_scale" in found)
            assert ("blk.0.ffn_up.scale" in found) == (kind == "packed")
            name = {"blk.0.ffn_down.weight"}
            assert set(model.metadata[extra].data) == (name if other == "packed" else listed - name)
            assert len(model.metadata["general.tensor_extra.prec_a4"].data) == len(model.metadata[extra].data)
        assert verify.run([output])["ok"]
    with pytest.raises(MissingTensors, match="is a factor of blk.0.ffn_down.weight"):
        graft.run(
            graft.GraftRequest(
                model=files["plain"], donor=files["packed"], tensors=r"ffn_down\.scale", output=tmp_path / "x.gguf"
            )
        )


@pytest.mark.parametrize("name", ["llama-awq", "llama-bnb-nf4", "llama-fp8-block", "llama-nvfp4-ct", "qwen2-moe-gptq",
                                  "qwen3-moe-nvfp4-modelopt"])  # fmt: skip
def test_the_logits_of_transformers(name: str, shared: Path) -> None:
    """Recorded with the exact float32 weights; 4-bit floats with their factor, not rounded activations."""
    path = shared / "packed" / name / "logits.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with numpy.load(path) as oracle, open_model(path.parent) as model:
        network = Network(model, kv_type="F32", length=64)
        ids, wanted = oracle["ids_a"], oracle["logits_a"]
        found = network.forward(ids[None], network.new_cache(1, len(ids)))[0][oracle["pos_a"]]
    assert numpy.abs(found - wanted).max() / wanted.std() < 2e-5
