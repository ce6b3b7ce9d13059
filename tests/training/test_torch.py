"""quantcli.torch: what training sees is what a file holds, and tuning gains on held-out text."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.errors import MetadataMismatch, UnsupportedGraph, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.loader import open_model
from quantcli.plan.recipes import FILE_TYPES
from quantcli.runner.network import Network

torch = pytest.importorskip("torch", reason="needs the extra torch: python -m pip install '.[torch]'")

from quantcli.torch import GridMatrix, TuneSettings, fake_quantize, tune  # noqa: E402
from quantcli.torch.graph import Graded  # noqa: E402
from quantcli.torch.grids import EVEN, HALVES  # noqa: E402
from quantcli.torch.tuning import _floats  # noqa: E402

TINY = Path(__file__).parents[2] / "examples" / "tiny"


def weights(rows: int = 6, columns: int = 512, seed: int = 3) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(size=(rows, columns)).astype(numpy.float32)


def made(name: str, values: numpy.ndarray) -> numpy.ndarray:
    ones = numpy.ones(values.shape[1], numpy.float32)
    return kernels.encode(tensor_types.BY_NAME[name].id, values, ones)


@pytest.mark.parametrize("name", ["Q4_0", "Q3_K", "IQ2_XS", "NVFP4"])
def test_a_fake_quantized_weight_is_what_a_file_holds_and_its_gradient_passes(name: str) -> None:
    weight = torch.from_numpy(weights()).requires_grad_()
    found = tensor_types.BY_NAME[name]
    search = "best" if kernels.can_encode(found.id, "best") else "ggml"
    wanted = kernels.decode(found.id, kernels.encode(found.id, weights(), search=search), 6, 512)
    result = fake_quantize(weight, name.lower())
    assert numpy.array_equal(result.detach().numpy(), wanted)
    (result * 2).sum().backward()
    assert bool((weight.grad == 2).all())


def test_what_cannot_be_fake_quantized_is_said() -> None:
    with pytest.raises(UsageError, match="no type 'Q9'"):
        fake_quantize(torch.zeros(2, 256), "Q9")
    with pytest.raises(Exception, match="multiple of Q4_K's block"):
        fake_quantize(torch.zeros(2, 100), "Q4_K")


@pytest.mark.parametrize("name", sorted({*HALVES, "MXFP4", "IQ1_M"}))
def test_a_matrix_that_nobody_tuned_keeps_its_blocks(name: str) -> None:
    blocks, values = made(name, weights()), torch.from_numpy(weights())
    grid = GridMatrix(name, blocks, 512, values)
    found = tensor_types.BY_NAME[name]
    decoded = kernels.decode(found.id, blocks, 6, 512)
    assert numpy.allclose(grid().detach().numpy(), decoded, atol=1e-6)
    assert numpy.array_equal(kernels.decode(found.id, grid.blocks(), 6, 512), decoded)


@pytest.mark.parametrize("name", sorted(HALVES))
def test_what_was_tuned_is_written(name: str) -> None:
    grid = GridMatrix(name, made(name, weights()), 512, torch.from_numpy(weights()))
    with torch.no_grad():
        grid.scales += 0.03
        grid.minima += 0.02 if grid.minima.requires_grad else 0
        if grid.latent is not None:
            grid.latent[0] += 1
    found = tensor_types.BY_NAME[name]
    decoded = kernels.decode(found.id, grid.blocks(), 6, 512)
    assert numpy.allclose(grid().detach().numpy(), decoded, rtol=2e-3, atol=3e-3)
    assert (grid.latent is not None) is (name in EVEN)


def test_the_pass_with_gradients_is_that_of_the_runner() -> None:
    tokens = numpy.random.default_rng(0).integers(0, 500, (2, 24)).astype(numpy.int32)
    with open_model(TINY) as model:
        network = Network(model, length=24, kv_type="F32")
        wanted = network.forward(tokens, network.new_cache(2, 24))
        held = {tensor.name: _floats(tensor) for tensor in model.tensors}
        own = Graded(model, 24, torch.device("cpu")).logits(torch.from_numpy(tokens.astype(numpy.int64)), held.get)
    assert abs(own.numpy() - wanted).max() < 1e-3 * wanted.std()


def quantized(path: Path, name: str = "Q2_K") -> Path:
    convert.run(ConvertRequest(source=TINY, file_types=(FILE_TYPES[name],), output=path))
    return path


def test_tuning_loses_less_on_held_out_text_at_the_same_types(tmp_path: Path) -> None:
    start, target, seen = quantized(tmp_path / "a.gguf"), tmp_path / "b.gguf", []
    short = TuneSettings(steps=8, code_rate=4e-3, tokens=8192, sampled=0, length=64, chunks=16)
    found = tune(TINY, start, target, short, device="cpu", progress=lambda done, of, loss: seen.append(done))
    assert found.after < found.before and found.steps > 0 and seen == list(range(1, 9))
    with open_model(start) as before, open_model(target) as after:
        assert [(t.name, t.stored, t.shape) for t in before.tensors] == [
            (t.name, t.stored, t.shape) for t in after.tensors
        ]
        assert after.metadata["quantcli.tune.steps"].data == found.steps
        length = 64
        tokens = numpy.random.default_rng(1).integers(0, 500, (1, length)).astype(numpy.int32)
        nets = [Network(one, length=length) for one in (before, after)]
        first, second = (net.forward(tokens, net.new_cache(1, length)) for net in nets)
        assert not numpy.array_equal(first, second)


def test_what_cannot_be_tuned_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no GGUF file"):
        tune(TINY, TINY, tmp_path / "b.gguf")
    arch = Path(__file__).parents[1] / "oracles" / "arch"
    other = next((one for one in sorted(arch.glob("*gemma*")) if (one / "config.json").exists()), None)
    if other is None:
        pytest.skip("no checkpoint of another family is packed as a folder")
    target = tmp_path / "g.gguf"
    convert.run(ConvertRequest(source=other, file_types=(FILE_TYPES["Q8_0"],), output=target))
    with pytest.raises(UnsupportedGraph, match="no Llama-like model"):
        tune(other, target, tmp_path / "h.gguf")
    with pytest.raises(MetadataMismatch):
        tune(TINY, target, tmp_path / "h.gguf")
