"""Files whose metadata contradict their tensors, generated from sound ones: an error of quantcli's, or finite figures.

Every key that a graph reads gets values of the wrong kind, bound and length; every tensor gets every wrong shape, and
NaN. What the runner computes is decided before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from fuzz import engine
from fuzz.mutators import ARRAY, STRING, Entry, Gguf, encode_gguf
from fuzz.mutators import Tensor as Raw
from fuzz.targets import plain_gguf
from helpers import oracles
from quantcli import architectures
from quantcli.architectures import keys
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, inspect
from quantcli.container import Value, ValueType, known, string, u32
from quantcli.errors import (
    BadConfig,
    BadTokenizer,
    ContextTooLong,
    MalformedFile,
    MissingTensors,
    NonFiniteResult,
    ShapeMismatch,
    UnsupportedGraph,
)
from quantcli.loader import open_model
from quantcli.model import Model
from quantcli.runner import finite, schema
from quantcli.runner.network import Network
from quantcli.runner.replay import Stepper
from quantcli.runner.session import make_operations
from quantcli.runner.weights import Packed

CONTRADICTION = (BadConfig, BadTokenizer, MissingTensors, ShapeMismatch, UnsupportedGraph)
#: between them: biases, experts (shared ones too), norms of heads, windows, positions, fused matrices, factors of the
#: rotation, yarn, sinks
NAMES = ("gemma3", "gpt-oss", "gpt2", "llama-tied-bias", "phi3", "qwen2-moe", "qwen3")
UINT32, FLOAT32 = int(ValueType.UINT32), int(ValueType.FLOAT32)
NUMBERS = (-1.0, math.nan, math.inf, 0.0, 0.5, 1e8)
COUNTS = (0, 1, 3, 2**22, 10**8, 2**31, 2**32 - 1)


def is_read(model: Model, key: str) -> bool:
    prefix, _, rest = key.partition(".")
    return prefix == model.architecture and rest in keys.read_by(architectures.find(prefix))


def variants_of(model: Model, key: str) -> Iterator[tuple[str, Model]]:
    """What an entry must not be (now and then it may)."""
    values: list[Value | None] = [None, string("many"), *map(u32, COUNTS)]
    values += [Value(ValueType.FLOAT32, number) for number in NUMBERS]
    for numbers in ((), (1, 2, 1), (math.nan, math.nan)):
        values.append(Value(ValueType.ARRAY, numpy.array(numbers, numpy.float32), ValueType.FLOAT32))
    for value in values:
        rest = {name: one for name, one in model.metadata.items() if name != key}
        what = "missing" if value is None else f"{value.type.name} {value.data}"
        yield f"{key}: {what}", replace(model, metadata=rest if value is None else {**rest, key: value})


def shapes_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every shape beside the right one: shorter, longer, a row less or more, another dimension."""
    columns, *rows = shape
    found = [(columns - 1, *rows), (columns + 1, *rows), (*shape, 2)]
    return [*found, *((columns, rows[0] + step, *rows[1:]) for step in (-1, 1))] if rows else found


def logits(network: Network) -> numpy.ndarray:
    """Of a few tokens, then of one more."""
    cache = network.new_cache(1, 8)
    network.forward(numpy.arange(20, 26)[None], cache)
    return Stepper(network, cache)(9)


def made(model: Model) -> Network:
    return Network(model, make_operations("float", 1), length=8, kv_type="F32")


@pytest.mark.parametrize("name", NAMES)
def test_wrong_kinds_and_numbers(name: str) -> None:
    """An error, or finite logits; an array where no layer has a number of its own is always an error, by its name."""
    with open_model(oracles.folder(name)) as model:
        for key in [key for key in model.metadata if is_read(model, key)]:
            for what, variant in variants_of(model, key):
                try:
                    found = logits(made(variant))
                except (*CONTRADICTION, ContextTooLong, NonFiniteResult) as error:
                    assert "ARRAY" not in what or key in str(error), what
                else:
                    assert numpy.isfinite(found).all() and "ARRAY" not in what, what


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_errors_before_anything_is_read(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        unread = [replace(tensor, reader=None) for tensor in model.tensors]  # nobody may read
        for index, tensor in enumerate(unread):
            for shape in shapes_of(tensor.shape):
                tensors = [*unread[:index], replace(tensor, shape=shape), *unread[index + 1 :]]
                with pytest.raises(CONTRADICTION):
                    made(replace(model, tensors=tensors))
                    pytest.fail(f"{tensor.name} of {shape}")


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_less_or_more_is_an_error(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        key = f"{model.architecture}.block_count"
        layers = model.metadata[key].data
        for number in (layers - 1, layers + 1, 10**8, 2**31):
            variant = replace(model, metadata={**model.metadata, key: u32(number)})
            with pytest.raises(CONTRADICTION, match=r"block_count|blk\.|pattern"):
                made(variant)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_names_the_first_layer(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        network = made(model)
        for tensor in model.tensors:
            values = network.weights.tensors[tensor.name].reader.read_rows(0, tensor.rows).copy()
            values[0, 0] = numpy.nan
            try:
                found = logits(network.replacing({tensor.name: Packed.of(values)}))
            except NonFiniteResult as error:
                expected = ".".join(tensor.name.split(".")[:2]) if tensor.name.startswith("blk.") else ""
                assert f"{expected}" in str(error), tensor.name
            else:
                assert numpy.isfinite(found).all(), tensor.name


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_that_are_not_finite_are_an_error(name: str) -> None:
    """What `embed` pools goes through the last norm and never through the head, whose logits are looked at."""
    with open_model(oracles.folder(name)) as model:
        network = made(model)
        tokens = numpy.arange(20, 23)[None]
        assert numpy.isfinite(network.states(tokens)).all()
        norm = network.settings.graph.final_norm
        for number, word in ((math.nan, "NaN"), (math.inf, "an infinite number|NaN")):
            network = made(model)
            network.weights.vector(f"{norm}.weight")[5] = number
            with pytest.raises(NonFiniteResult, match=f"the last norm gives ({word})"):
                network.states(tokens)


def test_a_repeated_step_names_the_layer_too() -> None:
    """The steps of a token are repeated without Python between the layers: who it was is found afterwards."""
    with open_model(oracles.folder("llama-tied-bias")) as model:
        network = made(model)
        cache = network.new_cache(1, 6)
        network.forward(numpy.arange(20, 23)[None], cache)
        step = Stepper(network, cache)
        step(9)
        weight = network.weights.vector("blk.1.ffn_norm.weight")
        before = weight[3]
        weight[3] = numpy.nan
        with pytest.raises(NonFiniteResult, match=r"blk\.1: layer 1 gives NaN"):
            step(7)
        weight[3] = before
        cache.length = [5] * len(cache.length)
        assert numpy.isfinite(step(7)).all()
        with pytest.raises(ContextTooLong, match="7 positions, prepared for 6"):  # the context has 8, the cache 6
            step(6)


# ---- whole files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Gguf]:
    """A checkpoint as a GGUF file of float32 that is taken apart."""
    folder = tmp_path_factory.mktemp("sound")

    def find(name: str) -> Gguf:
        path = folder / f"{name}.gguf"
        if not path.exists():
            convert.run(convert_request(source=oracles.folder(name), types=("F32",), output=path))
        return plain_gguf(path)

    return find


def with_entry(file: Gguf, key: str, entry: Entry | None) -> Gguf:
    metadata = {name: one for name, one in file.metadata.items() if name != key}
    return Gguf(metadata if entry is None else {**metadata, key: entry}, file.tensors)


def files_with_entries(file: Gguf) -> Iterator[tuple[str, Gguf]]:
    architecture = str(file.metadata["general.architecture"].data)
    for key in file.metadata:
        if key.startswith((f"{architecture}.", "tokenizer.ggml.")) or key in known.GENERAL:
            entries = [None, Entry(ARRAY, [1, 2], UINT32), Entry(FLOAT32, math.nan), Entry(FLOAT32, -1.0)]
            entries += [Entry(UINT32, number) for number in (0, 10**8, 2**31)]
            yield from ((f"{key} {entry}", with_entry(file, key, entry)) for entry in entries)


def files_with_tensors(file: Gguf) -> Iterator[tuple[str, Gguf]]:
    for index, tensor in enumerate(file.tensors):
        for shape in [*shapes_of(tuple(tensor.shape)), tuple(tensor.shape)]:
            raw = b"\xff" * 4 + (tensor.raw * 3)[4 : 4 * math.prod(shape)]
            changed = [
                *file.tensors[:index],
                Raw(tensor.name, list(shape), tensor.type, raw),
                *file.tensors[index + 1 :],
            ]
            yield f"{tensor.name} {shape}", Gguf(file.metadata, changed)


COMMANDS = (
    ["perplexity", "{model}", "-f", "{text}", "-c", "16", "--chunks", "1", "--threads", "1"],
    ["compare", "{model}", "{model}", "-f", "{text}", "-c", "16", "--chunks", "1", "--threads", "1"],
    ["generate", "{model}", "-p", "Once", "-n", "3", "--threads", "1"],
    ["imatrix", "{model}", "-f", "{text}", "-c", "16", "--chunks", "1", "-o", "{output}", "--force", "--threads", "1"],
    ["inspect", "{model}"],
)


def test_all_commands_end_well(sound: Callable[[str], Gguf], tmp_path: Path) -> None:
    """Every seventh variant through one of them, in turns."""
    places = {"model": tmp_path / "variant.gguf", "text": tmp_path / "text.txt", "output": tmp_path / "made.gguf"}
    places["text"].write_text("It believed whatever its metadata said. " * 12)
    file = sound("llama-tied-bias")
    for index, (what, variant) in enumerate([*files_with_entries(file), *files_with_tensors(file)][::7]):
        places["model"].write_bytes(encode_gguf(variant))
        command = COMMANDS[index % len(COMMANDS)]
        problem, detail = engine.outcome([part.format(**places) for part in command] + ["--json"])
        assert problem is None, f"{what}, {command[0]}: {problem}\n{detail}"


@pytest.mark.parametrize("key", sorted(known.GENERAL))
def test_names_that_are_no_texts(key: str, sound: Callable[[str], Gguf], tmp_path: Path) -> None:
    path, file = tmp_path / "variant.gguf", sound("llama-tied-bias")
    for entry in (Entry(ARRAY, [1, 2], UINT32), Entry(ARRAY, ["a"], STRING), Entry(UINT32, 1)):
        path.write_bytes(encode_gguf(with_entry(file, key, entry)))
        for look in (open_model, inspect.run):
            with pytest.raises(MalformedFile, match=key):
                look(path)


@pytest.mark.parametrize("key", sorted(known.TOKENIZER))
def test_a_vocabulary_of_the_wrong_kinds(key: str, sound: Callable[[str], Gguf], tmp_path: Path) -> None:
    path, file = tmp_path / "variant.gguf", sound("llama-tied-bias")
    wrong = "text" if key.endswith(("tokens", "merges", "scores", "token_type")) else "array"
    entry = Entry(STRING, "x") if wrong == "text" else Entry(ARRAY, [1, 2], UINT32)
    path.write_bytes(encode_gguf(with_entry(file, key, entry)))
    with pytest.raises(BadTokenizer, match=key):
        inspect.run(path)
    with open_model(path) as model, pytest.raises(BadTokenizer, match=key):
        made(model)


def test_inspect_says_it_too(sound: Callable[[str], Gguf], tmp_path: Path) -> None:
    """From headers alone; a part of a model, and a model that the runner lacks, contradict nothing."""
    path, file = tmp_path / "variant.gguf", sound("qwen3")
    short = [Raw(t.name, [1], t.type, t.raw[:4]) if t.name == "blk.1.attn_q_norm.weight" else t for t in file.tensors]
    path.write_bytes(encode_gguf(Gguf(file.metadata, short)))
    with pytest.raises(ShapeMismatch, match=r"blk\.1\.attn_q_norm\.weight: 1, the metadata wants 32"):
        inspect.run(path)
    adapter = with_entry(Gguf(file.metadata, file.tensors[:3]), "general.type", Entry(STRING, "adapter"))
    unknown = with_entry(Gguf(file.metadata, file.tensors[:3]), "general.architecture", Entry(STRING, "unheard-of"))
    for nothing_against in (file, adapter, unknown, Gguf(file.metadata, [])):
        path.write_bytes(encode_gguf(nothing_against))
        inspect.run(path)


# ---- the tables


def test_every_key_that_is_read_has_a_kind_and_bounds() -> None:
    assert set().union(*map(keys.read_by, architectures.every().values())) <= schema.SETTINGS.keys()


def test_figures_of_a_result_must_be_finite() -> None:
    finite.require_figures({"a": [1.0, {"b": 2}], "c": "nan", "d": None}, "x")
    with pytest.raises(NonFiniteResult, match=r"x: a\[1\]\.b is nan"):
        finite.require_figures({"a": [1.0, {"b": float("nan")}]}, "x")
