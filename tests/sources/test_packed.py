"""Packed checkpoints: groups become logical tensors, against numpy and against what llama.cpp's converter wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import safetensors.numpy

from helpers import oracles
from helpers.checkpoints import read_tensors, write_tensors
from quantcli import families, loader
from quantcli.errors import BadConfig, MalformedFile, MissingTensors, QuantcliError, ShapeMismatch, UnsupportedFile
from quantcli.ggml import kernels, tensor_types
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.packed import unpack
from quantcli.sources.packed.group import Format, Group, Settings
from quantcli.sources.tensor import LogicalTensor
from quantcli.views import Computed, Reader, Stacked, Strided, transpose

MXFP4 = tensor_types.BY_NAME["MXFP4"]
NAME = "model.layers.0.mlp.experts.down_proj"
LEVELS = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], numpy.float32)  # E2M1


def packed(experts: int = 3, rows: int = 6, groups: int = 2, seed: int = 2) -> dict[str, numpy.ndarray]:
    """Random codes and scales of one tensor, and one that is not packed."""
    rng = numpy.random.default_rng(seed)
    return {
        f"{NAME}_bias": rng.normal(size=(experts, rows)).astype(numpy.float32),
        f"{NAME}_blocks": rng.integers(0, 256, (experts, rows, groups, 16), numpy.uint8),
        f"{NAME}_scales": rng.integers(100, 150, (experts, rows, groups), numpy.uint8),
    }


SETTINGS = {"quant_method": "mxfp4"}


def folder(path: Path, tensors: dict[str, numpy.ndarray], settings: object = SETTINGS) -> Checkpoint:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"quantization_config": settings} if settings is not None else {}))
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    return Checkpoint(path)


def values_of(tensors: dict[str, numpy.ndarray]) -> numpy.ndarray:
    """The weights [experts, rows, columns] that codes and scales mean: low nibble first, power of two per 32."""
    codes, scales = tensors[f"{NAME}_blocks"], tensors[f"{NAME}_scales"].astype(numpy.int32) - 127
    levels = LEVELS[numpy.stack([codes & 15, codes >> 4], axis=-1)].reshape(*scales.shape, 32)
    return numpy.ldexp(levels, scales[..., None]).reshape(*scales.shape[:-1], -1)


# ---- one logical tensor


def test_a_group_is_one_tensor_in_the_place_of_its_codes(tmp_path: Path) -> None:
    with folder(tmp_path, packed()) as checkpoint:
        assert [tensor.name for tensor in checkpoint.logical_tensors] == [f"{NAME}_bias", NAME]
        assert sorted(checkpoint.tensors) == [f"{NAME}_bias", f"{NAME}_blocks", f"{NAME}_scales"]
        tensor = checkpoint.logical_tensors[1]
        assert tensor.shape == (3, 64, 6) and tensor.origin == f"model.safetensors: {NAME}_blocks"


def test_values_are_those_of_numpy(tmp_path: Path) -> None:
    tensors = packed()
    wanted = values_of(tensors).swapaxes(1, 2).reshape(3 * 64, 6)
    with folder(tmp_path, tensors) as checkpoint:
        tensor = checkpoint.logical_tensors[1]
        for start, stop in ((0, 192), (0, 1), (60, 70), (191, 192)):
            assert numpy.array_equal(tensor.read_rows(start, stop), wanted[start:stop])


def test_turned_back_the_blocks_come_through(tmp_path: Path) -> None:
    """Values 2b and 2b + 1 of source byte b end up in the nibbles that GGUF's block order wants, in any row order."""
    tensors = packed()
    codes = tensors[f"{NAME}_blocks"]
    nibbles = numpy.stack([codes & 15, codes >> 4], axis=-1).reshape(18, 2, 32)
    with folder(tmp_path, tensors) as checkpoint:
        view = transpose(checkpoint.logical_tensors[1].reader(), 3)
        assert view.raw and view.stored is MXFP4 and (view.rows, view.columns) == (18, 64)
        blocks = numpy.frombuffer(bytes(view.read_raw(0, 18)), numpy.uint8).reshape(18, 2, 17)
        odd = numpy.frombuffer(bytes(Strided(view, (9,), (2,), 1).read_raw(0, 9)), numpy.uint8).reshape(9, 2, 17)
        second = view.gather(numpy.arange(18), slice(32, 64))
    assert numpy.array_equal(blocks[..., 0], tensors[f"{NAME}_scales"].reshape(18, 2))
    assert numpy.array_equal(blocks[..., 1:] & 15, nibbles[..., :16])
    assert numpy.array_equal(blocks[..., 1:] >> 4, nibbles[..., 16:])
    assert numpy.array_equal(odd, blocks[1::2]) and numpy.array_equal(second, blocks[:, 1])
    decoded = kernels.decode(MXFP4.id, blocks.tobytes(), 18, 64)
    assert numpy.array_equal(decoded, values_of(tensors).reshape(18, 64))


def test_gpt_oss_has_the_recorded_bytes() -> None:
    """The experts of the packed checkpoint are copied: the sha256 of each is that of llama.cpp's converter."""
    path = oracles.folder("gpt-oss-mxfp4")
    expected = {row["name"]: row for row in json.loads((path / "expected.json").read_text())["tensors"]}
    with Checkpoint(path) as checkpoint:
        model = families.load_checkpoint(checkpoint)
        experts = [tensor for tensor in model.tensors if tensor.name.endswith("_exps.weight")]
        assert len(experts) == 6
        for tensor in experts:
            assert tensor.raw and tensor.stored is MXFP4
            digest = hashlib.sha256(tensor.reader.read_raw(0, tensor.rows)).hexdigest()
            assert digest == expected[tensor.name]["sha256"], tensor.name


class Scaled(Computed):
    """A format as later ones will be: bytes, decoded with one scale a row."""

    def __init__(self, codes: Reader, scales: Reader) -> None:
        self.codes, self.scales = codes, scales
        self.rows, self.columns = codes.rows, codes.columns

    def values(self, index: numpy.ndarray) -> numpy.ndarray:
        return self.codes.gather(index) * self.scales.read_rows(0, 1).T[index]


def test_a_format_that_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two formats of a method; only the scales mark a group; a part that may be missing is taken along."""

    def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
        codes = group.parts[".weight"]
        yield LogicalTensor(
            f"{group.name}.weight", codes.shape, Scaled(codes.reader(), group.parts[".weight_scale"].reader()), codes
        )

    parts = (".weight", ".weight_scale", ".input_scale")
    made = Format(
        "toy", parts, parts[1:2], lambda settings, _: settings.get("bits") == 8, logical, frozenset(parts[2:])
    )
    other = Format("toy", ("_x",), ("_x",), lambda settings, _: settings.get("bits") == 4, logical)
    monkeypatch.setattr(unpack, "FORMATS", (other, made))
    codes = numpy.arange(24, dtype=numpy.uint8).reshape(6, 4)
    scales = numpy.arange(1, 7, dtype=numpy.float32)
    plain = numpy.ones((2, 4), numpy.float16)
    tensors = {
        "a.weight": codes,
        "a.weight_scale": scales,
        "b.weight": plain,
        "c.weight": codes,
        "c.input_scale": plain,
    }
    tensors |= {"c.weight_scale": scales}
    with folder(tmp_path, tensors, {"quant_method": "toy", "bits": 8}) as checkpoint:
        found = {tensor.name: tensor for tensor in checkpoint.logical_tensors}
        assert list(found) == ["a.weight", "b.weight", "c.weight"]
        assert [tensor.dtype for tensor in found.values()] == ["F32", "F16", "F32"]
        view = found["a.weight"].reader()
        wanted = codes * scales[:, None]
        assert not view.raw and numpy.array_equal(view.read_rows(1, 5), wanted[1:5])
        assert numpy.array_equal(Strided(view, (2, 3), (1, 2)).read_rows(0, 6), wanted[[0, 2, 4, 1, 3, 5]])
        assert numpy.array_equal(transpose(view).read_rows(1, 3), wanted.T[1:3])
        assert numpy.array_equal(Stacked([view, view]).read_rows(5, 7), wanted[[5, 0]])
    with folder(tmp_path, tensors, {"quant_method": "toy", "bits": 3}) as checkpoint, pytest.raises(UnsupportedFile):
        checkpoint.check_packing()


# ---- what does not fit


def without(name: str) -> dict[str, numpy.ndarray]:
    return {key: value for key, value in packed().items() if key != name}


BROKEN: list[tuple[dict[str, numpy.ndarray], type[QuantcliError], str, str]] = [
    (without(f"{NAME}_scales"), MissingTensors, f"{NAME}_scales is missing", f"{NAME}_blocks"),
    (without(f"{NAME}_blocks") | {"x_blocks": packed()[f"{NAME}_blocks"], "x_scales": packed()[f"{NAME}_scales"]},
     MissingTensors, f"{NAME}_blocks is missing", f"{NAME}_scales"),
    (packed() | {f"{NAME}_scales": packed(groups=3)[f"{NAME}_scales"]},
     ShapeMismatch, r"shape \[3, 6, 3\], the packed weights ask for \[3, 6, 2\]", f"{NAME}_scales"),
    (packed() | {f"{NAME}_blocks": numpy.zeros((3, 6, 2, 8), numpy.uint8)},
     ShapeMismatch, r"\[3, 6, 2, 8\], MXFP4 has", f"{NAME}_blocks"),
    (packed() | {f"{NAME}_blocks": numpy.zeros(16, numpy.uint8)}, ShapeMismatch, r"\[16\]", f"{NAME}_blocks"),
    (packed() | {f"{NAME}_blocks": numpy.zeros((3, 6, 2, 16), numpy.float16)},
     UnsupportedFile, "of type F16; U8 can be read", f"{NAME}_blocks"),
    (packed() | {f"{NAME}_scales": numpy.zeros((3, 6, 2), numpy.float32)},
     UnsupportedFile, "of type F32; U8 can be read", f"{NAME}_scales"),
    (packed() | {NAME: numpy.zeros((3, 64, 6), numpy.float32)}, MalformedFile, "packed and unpacked", f"{NAME}_blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("tensors", "error", "words", "named"), BROKEN)
def test_broken_groups(
    tensors: dict[str, numpy.ndarray], error: type[QuantcliError], words: str, named: str, tmp_path: Path
) -> None:
    with folder(tmp_path, tensors) as checkpoint, pytest.raises(error, match=words) as caught:
        list(checkpoint.logical_tensors)
    assert (caught.value.where or "").endswith(f"tensor {named}")


PLAIN = {"a": numpy.zeros((2, 4), numpy.float16)}


PACKED = [
    {"a.weight": numpy.zeros((2, 4), numpy.uint8)},
    {"a.qweight": numpy.zeros((2, 4), numpy.int32)},
    PLAIN | {"a.weight_scale_inv": numpy.ones((1, 1), numpy.float32)},
    PLAIN | {"a.scales": numpy.ones((1, 1), numpy.float16)},
]
METHODS = ["hqq", "fp8", "mxfp4", "MXFP4"]


@pytest.mark.parametrize("tensors", PACKED)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_nothing_reads(method: str, tensors: dict[str, numpy.ndarray], tmp_path: Path) -> None:
    """Also a known one without tensors of its kind."""
    with folder(tmp_path, tensors, {"quant_method": method}) as checkpoint:
        with pytest.raises(UnsupportedFile) as caught:
            list(checkpoint.logical_tensors)
        assert caught.value.message == f"the weights are already quantized ({method})"
        assert caught.value.where == str(tmp_path / "config.json") and "BF16" in (caught.value.hint or "")


@pytest.mark.parametrize("method", [*METHODS, "", 4, None])
@pytest.mark.parametrize("beside", [{}, {"h.0.attn.bias": numpy.ones((1, 1, 4, 4), numpy.uint8)}])
def test_settings_that_were_left_over(method: object, beside: dict[str, numpy.ndarray], tmp_path: Path) -> None:
    """Tensors decide: plain ones are read as they are, and what config.json says of packing is told."""
    settings = {} if method is None else {"quant_method": method}
    with folder(tmp_path, PLAIN | beside, settings) as checkpoint:
        assert checkpoint.packing is None and [*checkpoint.tensors] == [t.name for t in checkpoint.logical_tensors]
        (note,) = checkpoint.notes
        assert "quantization_config" in note and "ignored" in note and (method in METHODS) == ("(" in note)


@pytest.mark.parametrize("settings", ["gptq", []])
def test_settings_that_are_none(settings: object, tmp_path: Path) -> None:
    with folder(tmp_path, PLAIN, settings) as checkpoint, pytest.raises(BadConfig, match="is no object"):
        checkpoint.check_packing()


@pytest.mark.parametrize("settings", [{}, {"quant_method": 4}])
def test_packed_without_a_method(settings: object, tmp_path: Path) -> None:
    with folder(tmp_path, PACKED[0], settings) as checkpoint, pytest.raises(BadConfig, match="has no quant_method"):
        checkpoint.check_packing()


@pytest.mark.parametrize("settings", [None, {}])
def test_codes_and_scales_that_tell_themselves(settings: object, tmp_path: Path) -> None:
    """MXFP4 is known by its tensors, whether or not config.json still speaks of it."""
    with folder(tmp_path, packed(), settings) as checkpoint:
        assert checkpoint.packing is not None and checkpoint.packing.format.method == "mxfp4"
        assert [tensor.name for tensor in checkpoint.logical_tensors] == [f"{NAME}_bias", NAME]


def test_settings_of_the_language_model(tmp_path: Path) -> None:
    checkpoint = folder(tmp_path, packed(), None)
    inner = {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}
    (tmp_path / "config.json").write_text(json.dumps(inner))
    with checkpoint:
        assert checkpoint.packing is not None and checkpoint.packing.format.method == "mxfp4"


def test_an_unpacked_checkpoint_that_still_says_mxfp4(tmp_path: Path) -> None:
    shutil.copytree(oracles.folder("gpt-oss"), tmp_path / "gpt-oss")
    path = tmp_path / "gpt-oss" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    with Checkpoint(tmp_path / "gpt-oss") as checkpoint, Checkpoint(oracles.folder("gpt-oss")) as plain:
        found, wanted = families.load_checkpoint(checkpoint), families.load_checkpoint(plain)
        assert [(t.name, t.type) for t in found.tensors] == [(t.name, t.type) for t in wanted.tensors]
        assert "mxfp4" in " ".join(found.notes) and not wanted.notes


def test_every_format_is_complete() -> None:
    for packing in unpack.FORMATS:
        assert packing.method and packing.marks and set(packing.marks) <= set(packing.parts)
        assert packing.optional <= set(packing.parts) - {packing.parts[0]}


# ---- stacks of experts


def test_experts_that_are_not_packed_alike_are_decoded(tmp_path: Path, shared: Path) -> None:
    """A stack of blocks and plain rows: nothing is rounded to the blocks of the others, and F32 files are F32."""
    source, target = shared / "packed" / "qwen3-moe-nvfp4-modelopt", tmp_path / "mixed"
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    module = "model.layers.0.mlp.experts.1.down_proj"
    tensors = dict(read_tensors(target))
    with Checkpoint(source) as checkpoint:
        packed = {tensor.name: tensor for tensor in checkpoint.logical_tensors if ".down_proj." in tensor.name}
        values = {name: (one.exact or one.reader()).read_rows(0, one.shape[0]) for name, one in packed.items()}
    plain = numpy.random.default_rng(0).normal(size=values[f"{module}.weight"].shape).astype(numpy.float32)
    values[f"{module}.weight"] = plain
    for name in [name for name in tensors if name.startswith(f"{module}.")]:
        del tensors[name]
    write_tensors(target, tensors | {f"{module}.weight": ("F32", [*plain.shape], plain.tobytes())})
    wanted = numpy.concatenate([values[name] for name in sorted(values)])
    with loader.open_model(target) as model:
        (stack,) = (tensor for tensor in model.tensors if tensor.name == "blk.0.ffn_down_exps.weight")
        others = [tensor for tensor in model.tensors if tensor.name == "blk.0.ffn_up_exps.weight"]
        assert stack.stored.name == "F32" and not stack.type.quantized and others[0].stored.name == "NVFP4"
        assert not [tensor for tensor in model.tensors if tensor.beside == stack.name]
        assert numpy.array_equal(stack.reader.read_rows(0, stack.rows), wanted)
        order = numpy.arange(stack.rows)[::-3]
        assert numpy.array_equal(stack.reader.gather(order).view(numpy.float32), wanted[order])
