"""The checkpoint maker of the benchmarks: same bytes again, readable by others, and a matrix that fits."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from quantcli import loader
from quantcli.plan import plan, recipes
from quantcli.plan.options import Options
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.statistics import imatrix


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoint", root / "scripts" / "make_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    maker.make(folder, maker.Shape(256, 2, 600), shards=3, imatrix=folder.parent / "imatrix.gguf")
    return folder


def test_same_arguments_same_bytes(maker: ModuleType, made: Path, tmp_path: Path) -> None:
    maker.make(tmp_path / "again", maker.Shape(256, 2, 600), shards=3, imatrix=tmp_path / "imatrix.gguf")
    assert (tmp_path / "imatrix.gguf").read_bytes() == (made.parent / "imatrix.gguf").read_bytes()
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir()) and len(names) == 7
    for name in names:
        assert (made / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_whole_model_with_a_matrix_for_every_layer(made: Path) -> None:
    matrix = imatrix.read(made.parent / "imatrix.gguf")
    with loader.open_model(made) as model:
        assert (model.architecture, len(model.metadata["tokenizer.ggml.tokens"].data)) == ("llama", 600)
        planned = plan.make(model, Options(recipes.parse("Q4_K_M"), importance=matrix))
        assert not imatrix.missing(matrix, planned.entries) and not planned.fallbacks
        assert len(matrix.entries) == 14
        rows = model.tensors[0].reader.read_rows(0, 4)
        assert 0.01 < rows.std() < 0.1


def test_the_tokenizer_is_one(made: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(made / "tokenizer.json"))
    ids = tokenizer.encode("Hello, world! \u00e9<|end|>").ids
    assert tokenizer.get_vocab_size() == 600 and ids[-1] == 599
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Hello, world! \u00e9"


@pytest.mark.parametrize("gigabytes", [2, 8])
def test_layers_follow_the_size(maker: ModuleType, gigabytes: int) -> None:
    shape = maker.Shape(2048, maker.layers_for(2048, 32_000, gigabytes * 1e9), 32_000)
    total = sum(2 * maker.prod(sizes) for _, sizes in shape.tensors())
    assert total == pytest.approx(gigabytes * 1e9, rel=0.03)


KINDS = Path(__file__).parents[2] / "scripts" / "kinds"
FEWER = {"hidden_size": 256, "num_hidden_layers": 2, "vocab_size": 608, "full_attention_interval": 2}
SMALLER = {"mamba2": {"num_heads": 8}}


@pytest.mark.parametrize("kind", sorted(path.stem for path in KINDS.glob("*.json")))
def test_other_kinds_run(maker: ModuleType, kind: str, tmp_path: Path) -> None:
    """The configs of scripts/kinds, made smaller: whole checkpoints of their families, which the runner takes."""
    config = json.loads((KINDS / f"{kind}.json").read_text())
    config |= {key: value for key, value in FEWER.items() if key in config} | SMALLER.get(kind, {})
    maker.make(tmp_path / kind, maker.Declared(config))
    with loader.open_model(tmp_path / kind) as model:
        network = Network(model, make_operations("float", 1), kv_type="F32", length=8)
        found = network.forward(numpy.arange(8)[None], network.new_cache(1, 8))
    assert found.shape == (1, 8, 608) and numpy.isfinite(found).all() and found.std() > 1e-3
