"""Every packed format against numpy, in slices and in other orders, on every instruction set; and broken ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy
import pytest

from helpers import packers
from helpers.checkpoints import write_tensors
from quantcli.errors import QuantcliError, UnsupportedFile
from quantcli.ggml import kernels, packing
from quantcli.loader import open_model
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.packed import rows as packed_rows
from quantcli.sources.tensor import SourceTensor
from quantcli.views import Reader, Strided, transpose

NAMES = ("deepseek-v3-fp8 llama-awq llama-bitnet158 llama-bnb-nf4 llama-ct-fp8-channel llama-ct-fp8-tensor "
         "llama-ct-w4a16-asym llama-ct-w4a16-sym llama-ct-w8a8 llama-fp8-block llama-gptq llama-gptq-actorder "
         "llama-gptq-asym llama-nvfp4-ct llama-nvfp4-modelopt mistral-fp8-tensor qwen2-awq qwen2-moe-gptq "
         "qwen3-moe-fp8-block qwen3-moe-nvfp4-modelopt").split()  # fmt: skip


def folder(path: Path, made: packers.Packed) -> Checkpoint:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"quantization_config": made.settings}))
    write_tensors(path, made.tensors)
    return Checkpoint(path)


def exact(tensor: SourceTensor) -> Reader:
    return tensor.exact or tensor.reader()


@pytest.mark.parametrize("name", packers.FORMATS)
def test_values_are_those_of_numpy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_rows, "BAND_BYTES", 4096)  # several bands
    made = packers.FORMATS[name]()
    with folder(tmp_path, made) as checkpoint:
        found = {tensor.name: tensor for tensor in checkpoint.logical_tensors}
        assert set(found) == set(made.values)
        for key, wanted in made.values.items():
            tensor, flat = found[key], wanted.reshape(-1, wanted.shape[-1])
            assert tensor.shape == wanted.shape
            for start, stop in ((0, len(flat)), (1, 2), (3, len(flat) - 2)):
                got = exact(tensor).read_rows(start, stop)
                assert got.tobytes() == flat[start:stop].astype(numpy.float32).tobytes(), (start, stop)
            if tensor.reader().stored.quantized:
                continue  # blocks: what they decode to is checked below
            order = Strided(exact(tensor), (2, len(flat) // 2), (1, 2))
            assert numpy.array_equal(order.read_rows(0, order.rows), flat[: order.rows].reshape(-1, 2, flat.shape[1])
                                     .swapaxes(0, 1).reshape(order.rows, -1))  # fmt: skip
            if wanted.ndim == 2:
                assert numpy.array_equal(transpose(exact(tensor)).read_rows(1, 3), flat.T[1:3])


@pytest.mark.parametrize("name", [name for name in packers.FORMATS if "fp4" in name and name != "fp4"])
def test_blocks_that_are_copied_mean_the_same(name: str, tmp_path: Path) -> None:
    """The bytes of a copied tensor, decoded and times its factor, are the values."""
    made = packers.FORMATS[name]()
    with folder(tmp_path, made) as checkpoint:
        (tensor,) = checkpoint.logical_tensors
        view = tensor.reader()
        if not view.stored.quantized:
            assert tensor.shape[-1] % 64
            return
        raw = numpy.frombuffer(bytes(view.read_raw(0, view.rows)), numpy.uint8)
        decoded = kernels.decode(view.stored.id, raw, view.rows, view.columns)
        (wanted,) = made.values.values()
        assert numpy.array_equal(decoded * numpy.float32(tensor.factors.weights), wanted)


KINDS = [
    packing.NIBBLES,
    packing.NIBBLES_HIGH,
    packing.PAIRS,
    packing.BYTES,
    packing.SIGNED,
    packing.E4M3,
    packing.E5M2,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("columns", "group"), [(256, 64), (264, 24), (40, 0), (8, 8), (100, 36)])
def test_the_same_values_on_every_instruction_set(kind: packing.Packing, columns: int, group: int) -> None:
    rng = numpy.random.default_rng(columns)
    codes = rng.integers(0, 256, (5, kind.row_bytes(columns)), numpy.uint8)
    scale = rng.normal(size=(5, -(-columns // group) if group else 1)).astype(numpy.float32)
    index = rng.integers(0, scale.shape[1], columns).astype(numpy.int32)
    variants = [{}, {"zero": rng.integers(0, 17, scale.shape).astype(numpy.float32)}, {"index": index}]
    if kind.bits == 4:
        variants.append({"levels": rng.normal(size=16).astype(numpy.float32)})
    for variant in variants:
        found = [
            packing.unpack(kind, codes, columns, scale, group=group, isa=isa, **variant)
            for isa, there in kernels.instruction_sets()
            if there
        ]
        for other in found[1:]:
            assert numpy.array_equal(found[0], other, equal_nan=True)


@pytest.mark.parametrize("shape", [(8, 1), (64, 9), (72, 17), (256, 64)])
def test_turned_packings(shape: tuple[int, int]) -> None:
    words = numpy.random.default_rng(1).integers(0, 2**32, shape, dtype=numpy.uint32)
    nibbles = words[:, :, None] >> (4 * numpy.arange(8, dtype=numpy.uint32)) & 15
    by_output = numpy.empty_like(nibbles)
    by_output[:, :, [0, 2, 4, 6, 1, 3, 5, 7]] = nibbles
    wanted = by_output.reshape(shape[0], -1).T
    for isa, there in kernels.instruction_sets():
        if there:
            assert numpy.array_equal(packing.turn_words(words, isa=isa), words.T)
            turned = packing.turn_nibbles(words, isa=isa)
            codes = turned[:, :, None] >> (4 * numpy.arange(8, dtype=numpy.uint32)) & 15
            assert numpy.array_equal(codes.reshape(wanted.shape), wanted)


def test_8_bit_floats_one_by_one() -> None:
    codes = numpy.arange(256, dtype=numpy.uint8)[None, :]
    one = numpy.ones((1, 1), numpy.float32)
    found = packing.unpack(packing.E4M3, codes, 256, one)
    numbers = (codes & 127) != 127
    assert numpy.isnan(found[~numbers]).all() and numbers.sum() == 254
    assert found[numbers].tobytes() == packers.e4m3(codes[numbers]).tobytes()
    assert numpy.array_equal(packing.unpack(packing.E5M2, codes, 256, one), packers.e5m2(codes), equal_nan=True)


# ---- the large oracles, where they are


@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_to_f32_has_the_recorded_tensors(name: str, shared: Path) -> None:
    """``exact_f32_tensors``: sha256 of every tensor's float32 bytes, from a dequantization of its own."""
    path = shared / "packed" / name
    if not path.is_dir():
        pytest.skip(f"{path} is not here")
    expected = json.loads((path / "expected.json").read_text())
    with open_model(path) as model:
        if "exact_f32_tensors" not in expected:  # stays packed: bytes, and the factors beside them
            rows = {row["name"]: row for row in expected["tensors"]}
            for tensor in model.tensors:
                if tensor.stored.quantized or tensor.beside:
                    raw = bytes(tensor.reader.read_raw(0, tensor.rows))
                    assert hashlib.sha256(raw).hexdigest() == rows[tensor.name]["sha256"], tensor.name
            assert {tensor.name for tensor in model.tensors} == set(rows)
            return
        wanted = expected["exact_f32_tensors"]
        assert {tensor.name for tensor in model.tensors} == set(wanted)
        for tensor in model.tensors:
            digest = hashlib.sha256(tensor.reader.read_rows(0, tensor.rows).tobytes()).hexdigest()
            assert digest == wanted[tensor.name], tensor.name


# ---- what is broken


def read_all(checkpoint: Checkpoint) -> None:
    for tensor in checkpoint.logical_tensors:
        reader = exact(tensor)
        reader.read_rows(0, reader.rows)


def broken_cases() -> dict[str, tuple[packers.Packed, str, str]]:
    """name -> (what is packed, the part of it that the error names, words of the reason)."""
    cases: dict[str, tuple[packers.Packed, str, str]] = {}

    def case(name: str, format_name: str, part: str, words: str, change: object = None, **settings: object) -> None:
        made = packers.FORMATS[format_name]()
        made.settings.update(settings)
        full = packers.BASE + part
        if change == "missing":
            del made.tensors[full]
        elif callable(change):
            made.tensors[full] = change(*made.tensors[full])
        cases[name] = made, part, words

    def filled(value: float, position: int = 3):
        def change(dtype: str, shape: list[int], data: bytes) -> tuple[str, list[int], bytes]:
            if dtype in packers.NUMPY:
                values = numpy.frombuffer(data, packers.NUMPY[dtype]).copy()
            else:
                values = numpy.zeros(int(numpy.prod(shape)), numpy.float32) + 0.01
            values[min(position, len(values) - 1)] = value
            return packers.entry(values.reshape(shape), dtype)

        return change

    def reshaped(*shape: int):
        def change(dtype: str, old: list[int], data: bytes) -> tuple[str, list[int], bytes]:
            size = len(data) // max(int(numpy.prod(old)), 1)
            return dtype, list(shape), (data * 4)[: int(numpy.prod(shape)) * size]

        return change

    def retyped(dtype: str):
        def change(_: str, shape: list[int], data: bytes) -> tuple[str, list[int], bytes]:
            return packers.entry(numpy.ones(shape), dtype)

        return change

    # a part is missing
    case("gptq without scales", "gptq", ".qweight", "down_proj.scales is missing", None)
    del cases["gptq without scales"][0].tensors[f"{packers.BASE}.scales"]
    case("gptq without zeros", "gptq", ".qweight", "qzeros is missing", None)
    del cases["gptq without zeros"][0].tensors[f"{packers.BASE}.qzeros"]
    case("gptq without codes", "gptq", ".scales", "qweight is missing", None)
    del cases["gptq without codes"][0].tensors[f"{packers.BASE}.qweight"]
    case("gptq without an order", "gptq-act-order", ".qweight", "no g_idx", None)
    del cases["gptq without an order"][0].tensors[f"{packers.BASE}.g_idx"]
    case("w4a16 without scales", "w4a16", ".weight_packed", "weight_scale is missing", None)
    del cases["w4a16 without scales"][0].tensors[f"{packers.BASE}.weight_scale"]
    case("w4a16 without a shape", "w4a16", ".weight_packed", "weight_shape is missing", None)
    del cases["w4a16 without a shape"][0].tensors[f"{packers.BASE}.weight_shape"]
    case("fp8 without codes", "fp8-block", ".weight_scale_inv", "is missing|already quantized", None)
    del cases["fp8 without codes"][0].tensors[f"{packers.BASE}.weight"]
    cases["fp8 without codes"][0].tensors["other.weight"] = packers.entry(numpy.zeros((2, 2), numpy.uint8), "F8_E4M3")
    case("nf4 without a map", "nf4", ".weight.absmax", "quant_map is missing", None)
    del cases["nf4 without a map"][0].tensors[f"{packers.BASE}.weight.quant_map"]
    case("nf4 without a state", "nf4", ".weight", "no quant_state", None)
    del cases["nf4 without a state"][0].tensors[f"{packers.BASE}.weight.quant_state.bitsandbytes__nf4"]
    # config.json says otherwise
    case("gptq of another group size", "gptq", ".scales", "groups of 64 ask for 4 rows", group_size=64)
    case("gptq of other bits", "gptq", ".scales", "ask for", bits=8)
    case("gptq of 3 bits", "gptq", ".qweight", "codes of 3 bits", bits=3)
    case("gptq of a group of 0", "gptq", "", "group_size is 0", group_size=0)
    case("gptq of words for bits", "gptq", "", "bits is 'four'", bits="four")
    case("gptq packed for marlin", "gptq", ".qweight", "packed for marlin", checkpoint_format="marlin")
    case("awq of another group size", "awq", ".scales", "ask for 8 rows", group_size=32)
    case("awq of another version", "awq", ".qweight", "AWQ gemv", version="gemv")
    case("fp8 of other tiles", "fp8-block", ".weight_scale_inv", "tiles of 64 x 64", weight_block_size=[64, 64])
    case("fp8 of a tile of words", "fp8-block", "", "not two positive numbers", weight_block_size=[128, "x"])
    case("w4a16 of another group size", "w4a16", ".weight_scale", "tiles of 1 x 32", config_groups={
        "group_0": {"weights": {"num_bits": 4, "strategy": "group", "group_size": 32}}})  # fmt: skip
    case("w4a16 of other bits", "w4a16", ".weight_packed", "take another number", config_groups={
        "group_0": {"weights": {"num_bits": 8, "strategy": "group", "group_size": 128}}})  # fmt: skip
    case("w4a16 of 3 bits", "w4a16", ".weight_packed", "codes of 3 bits", config_groups={
        "group_0": {"weights": {"num_bits": 3, "strategy": "group", "group_size": 128}}})  # fmt: skip
    # numbers that are none
    case("gptq with a scale of 0", "gptq", ".scales", "column 3 is 0", filled(0.0))
    case("gptq with a scale of NaN", "gptq", ".scales", "is NaN", filled(float("nan")))
    case("awq with an infinite scale", "awq", ".scales", "is infinite", filled(float("inf")))
    case("fp8 with a scale of 0", "fp8-block", ".weight_scale_inv", "row 1, column 0 is 0", filled(0.0))
    case("fp8 with a scale of NaN", "fp8-block", ".weight_scale_inv", "is NaN", filled(float("nan")))
    case("w8a8 with a scale of 0", "w8a8", ".weight_scale", "row 3, column 0 is 0", filled(0.0))
    case("w4a16 with a scale of NaN", "w4a16", ".weight_scale", "is NaN", filled(float("nan")))
    case("bitnet with a scale of 0", "bitnet", ".weight_scale", "is 0", filled(0.0))
    case("nf4 with an absmax of NaN", "nf4-plain", ".weight.absmax", "is NaN", filled(float("nan")))
    case("nvfp4 with a scale of NaN", "nvfp4-modelopt", ".weight_scale", "column 3 is NaN", filled(0x7F))
    case("nvfp4 with a factor of 0", "nvfp4-compressed", ".weight_global_scale", "is 0", filled(0.0))
    case("mxfp4 with a scale of NaN", "mxfp4-compressed", ".weight_scale", "NaN", filled(255))
    case("bitnet with a code of 3", "bitnet", ".weight", "code 3", filled(0xFF))
    # orders and shapes
    case("gptq with a group beyond", "gptq-act-order", ".g_idx", "column 3 into group 99; there are 8", filled(99))
    case("gptq with a negative group", "gptq-act-order", ".g_idx", "into group -1", filled(-1))
    case("gptq with a short order", "gptq", ".g_idx", "ask for", reshaped(100))
    case("gptq with codes of three axes", "gptq", ".qweight", "GPTQ has", reshaped(4, 8, 64))
    case("gptq with other outputs", "gptq", ".scales", "ask for", reshaped(2, 63))
    case("gptq with few zeros", "gptq", ".qzeros", "ask for", reshaped(2, 7))
    case("gptq with bytes", "gptq", ".qweight", "of type U8", retyped("U8"))
    case("awq with odd inputs", "awq", ".qweight", "AWQ has", reshaped(255, 8))
    case("w4a16 with a shape of 0", "w4a16", ".weight_shape", "says 0 x 256", filled(0, 0))
    case("w4a16 with other rows", "w4a16", ".weight_packed", "weight_shape says 48 rows", reshaped(47, 32))
    case("w4a16 with few zeros", "w4a16-asymmetric", ".weight_zero_point", "ask for", reshaped(4, 6))
    case("fp8 with scales of words", "fp8-block", ".weight_scale_inv", "of type I32", retyped("I32"))
    case("w8a8 with scales of other rows", "w8a8", ".weight_scale", "ask for", reshaped(23, 1))
    case("nf4 cut short", "nf4", ".weight", "bytes of codes", reshaped(1000, 1))
    case("nf4 with few blocks", "nf4", ".weight.absmax", "ask for", reshaped(7))
    case("nvfp4 with other groups", "nvfp4-modelopt", ".weight_scale", "ask for", reshaped(24, 11))
    case("bitnet of three axes", "bitnet", ".weight", "BitNet has", reshaped(2, 3, 100))
    return {name: one for name, one in cases.items() if one is not None}


CASES = broken_cases()


@pytest.mark.parametrize("name", CASES)
def test_broken_input(name: str, tmp_path: Path) -> None:
    """An error of the house: status 1, the tensor (or config.json) and the reason."""
    made, part, words = CASES[name]
    with folder(tmp_path, made) as checkpoint, pytest.raises(QuantcliError, match=words) as caught:
        read_all(checkpoint)
    assert caught.value.exit_status == 1
    named = f"tensor {packers.BASE}{part}" if part else "config.json"
    assert named in (caught.value.where or "") or packers.BASE in caught.value.message


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 30


def test_a_file_that_is_cut(tmp_path: Path) -> None:
    folder(tmp_path, packers.FORMATS["gptq"]()).close()
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(QuantcliError, match="truncated|end at byte"):
        read_all(checkpoint)


def test_inputs_that_are_multiplied_are_refused(tmp_path: Path) -> None:
    """NVFP4_AWQ of ModelOpt: the weights alone are not what the model computes with."""
    made = packers.FORMATS["nvfp4-modelopt"]()
    name = f"{packers.BASE}.pre_quant_scale"
    made.tensors[name] = packers.entry(numpy.ones(192), "BF16")
    with folder(tmp_path, made) as checkpoint, pytest.raises(UnsupportedFile, match="multiplies the inputs") as caught:
        _ = checkpoint.logical_tensors
    assert name in (caught.value.where or "") and caught.value.hint


def test_bits_of_their_own_that_nothing_reads(tmp_path: Path) -> None:
    made = packers.FORMATS["gptq-of-their-own"]()
    for settings in made.settings["dynamic"].values():
        settings |= {"bits": 3} if settings.get("bits") == 8 else {}
    with folder(tmp_path, made) as checkpoint, pytest.raises(QuantcliError, match="down_proj|ask for"):
        _ = checkpoint.logical_tensors


@pytest.mark.parametrize("method", ["hqq", "aqlm", "exl2", "something-new"])
def test_methods_that_nothing_reads_are_named(method: str, tmp_path: Path) -> None:
    made = packers.Packed({"a.W_q": packers.entry(numpy.zeros((4, 4), numpy.uint8), "U8")}, {"quant_method": method})
    with folder(tmp_path, made) as checkpoint, pytest.raises(QuantcliError, match=method) as caught:
        checkpoint.check_packing()
    assert caught.value.exit_status == 1 and "a.W_q" in (caught.value.hint or "")


def test_what_modelopt_says_in_a_file_of_its_own(tmp_path: Path) -> None:
    made = packers.FORMATS["nvfp4-modelopt"]()
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    folder(tmp_path, made).close()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(said))
    with Checkpoint(tmp_path) as checkpoint:
        (tensor,) = checkpoint.logical_tensors
        assert tensor.reader().stored.name == "NVFP4" and tensor.factors.inputs == 0.25
