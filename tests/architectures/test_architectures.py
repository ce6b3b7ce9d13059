"""The declarations of GGUF architectures: found by name, consistent, and a gate before what they do not mention."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gguf.constants import Keys

from helpers import oracles
from quantcli import architectures, container, families
from quantcli.architectures import keys
from quantcli.errors import UnsupportedGraph
from quantcli.loader import open_model
from quantcli.model import Model
from quantcli.runner import ropes, routing, settings
from quantcli.runner.schema import SETTINGS

ALL = architectures.every()
# The architectures that the runner computes.
RUN = sorted(name for name, one in ALL.items() if one.graph)
# Every key below an architecture's name that llama.cpp's own converter can write; some are newer than the package.
NEWER = {
    "hidden_activation", "classifier.pooling_type", "attention.rope_pattern", "attention.recurrent_layers",
    "attention.value_scale", *keys.INDEXER,
}  # fmt: skip
# What the parts of a graph cannot do without.
LEAST = {
    "latent": {
        "attention.kv_lora_rank": 8, "rope.dimension_count": 4, "attention.key_length": 12,
        "attention.value_length": 8, "attention.key_length_mla": 12, "attention.value_length_mla": 8,
    },
    "indexer": {"attention.indexer.head_count": 1, "attention.indexer.key_length": 8, "attention.indexer.top_k": 4},
    "streams": {"altup.num_inputs": 4},
}  # fmt: skip
WRITTEN = sorted(
    NEWER
    | {
        text.removeprefix("{arch}.")
        for group in vars(Keys).values()
        if isinstance(group, type)
        for text in vars(group).values()
        if isinstance(text, str) and text.startswith("{arch}.")
    }
)


def sizes(name: str) -> Model:
    """A model of this architecture with the least metadata that can be run, and no tensors."""
    numbers = {"block_count": 4, "context_length": 64, "embedding_length": 64, "attention.head_count": 4}
    numbers |= {"attention.relative_buckets_count": 32} if ALL[name].graph.encoder_decoder else {}
    for part, least in LEAST.items():
        numbers |= least if getattr(ALL[name].graph, part) else {}
    metadata = {f"{name}.{key}": container.u32(number) for key, number in numbers.items()}
    states = [key for key in keys.STATES.get(ALL[name].graph.recurrent, ()) if key != "ssm.dt_b_c_rms"]
    metadata |= {f"{name}.{key}": container.u32(4) for key in states}
    epsilon = keys.EPSILON[ALL[name].graph.norm]
    metadata[f"{name}.{epsilon}"] = container.f32(1e-5)
    metadata |= {f"{name}.{key}": container.f32(1) for key in ALL[name].needs}
    if ALL[name].graph.activation == "xielu":
        one_each = container.array(container.ValueType.FLOAT32, [0.5] * numbers["block_count"])
        metadata |= dict.fromkeys(settings.XIELU, one_each)
    return Model(name="made", architecture=name, metadata=metadata, tensors=[], default_float=None, kind="gguf")


# ---- the table


def test_every_architecture_is_found_by_its_name() -> None:
    for name, one in ALL.items():
        assert architectures.find(name) is one and one.name == name
    for stranger in ("", "llama5", "lla", "no-such", "gguf_llama"):
        assert architectures.find(stranger) == architectures.Architecture(stranger)


def test_every_family_is_written_as_one_that_computes() -> None:
    assert {family.gguf_arch for family in families.registry().values()} <= {name for name in ALL if ALL[name].graph}


def test_one_is_found_without_reading_the_others() -> None:
    code = (
        "import sys; from quantcli import architectures; architectures.find('gemma3'); import quantcli.plan.recipes;"
        "print(*(name for name in sys.modules if '.gguf_' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["quantcli.architectures.gguf_gemma"]


def test_declared_keys_are_keys_of_the_format() -> None:
    """A misspelt key would let nothing pass and refuse the right one."""
    stated = {*keys.HARMLESS, *keys.OFF}.union(*(one.reads + one.harmless for one in ALL.values()))
    stated = stated.union(*(keys.read_by(one) for one in ALL.values()))
    assert stated <= set(WRITTEN)
    for one in ALL.values():
        assert not keys.read_by(one) & {*keys.HARMLESS, *one.harmless}, one.name


# ---- the gate


def test_the_least_metadata_runs() -> None:
    assert {name for name in ALL if runs(name)} == set(RUN)


def runs(name: str) -> bool:
    if ALL[name].graph is None:
        return False
    try:
        return bool(settings.read(sizes(name)).layers)
    except UnsupportedGraph:
        return False


@pytest.mark.parametrize("name", RUN)
def test_what_an_architecture_does_not_read_is_refused(name: str) -> None:
    """All keys of the format, and one that nobody knows: each passes, or is an error that names it."""
    known = keys.read_by(ALL[name]) | {*keys.HARMLESS, *ALL[name].harmless}
    for key in [*WRITTEN, "attention.new_trick"]:
        model = sizes(name)
        if key in known:
            continue
        model.metadata[f"{name}.{key}"] = container.u32(7)
        with pytest.raises(UnsupportedGraph) as caught:
            settings.read(model)
        assert f"{name}.{key}:" in str(caught.value) and caught.value.hint, key


@pytest.mark.parametrize("name", RUN)
def test_harmless_keys_pass(name: str) -> None:
    model, plain = sizes(name), settings.read(sizes(name))
    for key in (*keys.HARMLESS, *ALL[name].harmless):
        flag = key in SETTINGS and SETTINGS[key].kind == "flag"
        model.metadata[f"{name}.{key}"] = container.boolean(True) if flag else container.u32(7)
    model.metadata["general.anything"] = model.metadata["other.attention.sliding_window"] = container.u32(7)
    assert settings.read(model) == plain


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in keys.OFF.items() for value in values])
def test_a_value_that_turns_its_key_off_passes(key: str, value: object) -> None:
    model = sizes("olmoe")
    kind = (
        container.boolean if isinstance(value, bool) else container.f32 if isinstance(value, float) else container.u32
    )
    model.metadata[f"olmoe.{key}"] = kind(value)
    assert settings.read(model) == settings.read(sizes("olmoe"))


def test_a_window_that_would_be_dropped() -> None:
    """What the issue is about: the file says that its layers have windows, and a Qwen 3 of ours would not use them."""
    with open_model(oracles.folder("qwen3-moe")) as model:
        settings.read(model)
        model.metadata["qwen3moe.attention.sliding_window"] = container.u32(16)
        with pytest.raises(UnsupportedGraph, match=r"qwen3moe\.attention\.sliding_window"):
            settings.read(model)


def test_values_that_nobody_computes(root: Path) -> None:
    """A key that is read, with a word or number outside what is known."""
    for name, key, value in (
        ("llama", "rope.scaling.type", container.string("dynamic")),
        ("deepseek2", "expert_gating_func", container.u32(9)),
    ):
        model = sizes(name)
        model.metadata |= {f"{name}.expert_count": container.u32(4), f"{name}.expert_used_count": container.u32(2)}
        model.metadata[f"{model.architecture}.{key}"] = value
        reader = settings._Reader(model.architecture, model.metadata)
        graph = ALL[name].graph
        with pytest.raises(UnsupportedGraph, match=key):
            ropes.read(reader, graph, 16) if key.startswith("rope") else routing.read(reader, graph, 4, 0)


# ---- windows


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        (None, [True, True, True, False]),
        (container.u32(1), [True] * 4),
        (container.u32(2), [True, False, True, False]),
        (container.array(container.ValueType.BOOL, [False, False, False, True]), [False, False, False, True]),
    ],
)
def test_patterns_of_windows(pattern: container.Value | None, layers: list[bool]) -> None:
    model = sizes("exaone-moe")
    assert settings.read(model).window_layers == (False,) * 4
    assert all(settings.read(model).rotates(layer) for layer in range(4))
    model.metadata["exaone-moe.attention.sliding_window"] = container.u32(16)
    if pattern:
        model.metadata["exaone-moe.attention.sliding_window_pattern"] = pattern
    found = settings.read(model)
    assert list(found.window_layers) == layers
    assert [found.rotates(layer) for layer in range(4)] == layers, "only layers with a window rotate"


def test_windows_of_one_depth_only() -> None:
    """llama.cpp has no windows in an EXAONE 4 of another depth than the released one, and rotates all layers."""
    model = sizes("exaone4")
    model.metadata["exaone4.attention.sliding_window"] = container.u32(16)
    found = settings.read(model)
    assert found.window_layers == (False,) * 4 and all(found.rotates(layer) for layer in range(4))
    model.metadata["exaone4.block_count"] = container.u32(64)
    assert settings.read(model).window_layers == (True, True, True, False) * 16
