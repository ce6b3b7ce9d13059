"""Methods of the literature as functions of a model's matrices: what they would write, or simulate in float32.

Used by bench_literature.py. `Bench` knows the matrices, the second moments of their inputs, and measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy

from quantcli import loader
from quantcli.calibration import float_stream, observers
from quantcli.calibration.compensate import calibration_network
from quantcli.calibration.exactness import exact_feeds
from quantcli.calibration.merging import Merging
from quantcli.calibration.weight_errors import importance_of
from quantcli.ggml import kernels
from quantcli.ggml.compensate import Effort
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.methods import compensation, hqq
from quantcli.methods.compensation import Metric
from quantcli.methods.plain import search_for
from quantcli.model import Model
from quantcli.runner import cache
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks, chunks_of
from quantcli.runner.weights import Packed, holding
from quantcli.transforms import rescale
from quantcli.vocab.tokenizer import Tokenizer

TEXTS = {"wiki": "wiki.test.raw", "books": "books.txt", "code": "code.txt"}
LENGTH = 512
CALIBRATION_CHUNKS = 24
SEED = 5
NF4 = (  # of Dettmers and others 2023
    *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)


@dataclass
class Seen:
    """One model's matrices and the mean second moments of their inputs."""

    model: Model
    network: Network
    values: dict[str, numpy.ndarray]
    hessian: dict[str, numpy.ndarray]
    largest: dict[str, numpy.ndarray]
    layers: list = field(default_factory=list)

    def importance(self, name: str) -> numpy.ndarray:
        return importance_of(numpy.diagonal(self.hessian[name]).copy())


Contents = Mapping[str, Packed]
Read = Callable[[str], numpy.ndarray]  # a tensor's name -> float64
Basis = Callable[[Read, Sequence[str], int], numpy.ndarray]  # matrices on the residual stream -> a rotation of it
WRITERS = ("attn_output.weight", "ffn_down.weight")
Row = Callable[["Bench"], "Variant"]


@dataclass(frozen=True)
class Variant:
    """What is measured. ``note``: whatever else is worth a line."""

    seen: Seen
    contents: Contents
    activations: str = "float"
    kv_type: str = "F16"
    note: str = ""


def predictions(network: Network, chunks: Chunks) -> list[numpy.ndarray]:
    """Log-probabilities of every chunk's second half, [positions, V]."""
    found = []
    for start, stop in chunks.batches():
        x = network.stream(chunks.inputs(start, stop))
        found += [network.log_probs(one[None, chunks.first_scored : -1])[0] for one in x]
    return found


class Bench:
    """The model, its moments, the texts, and the model's own predictions on them."""

    def __init__(self, shared: Path, folder: Path, chunks: int, threads: int) -> None:
        self.threads = threads
        self.model = loader.open_model(folder)
        tokenizer = Tokenizer.from_metadata(self.model.metadata)
        self.fit = chunks_of(tokenizer, shared / "text" / "calibration.txt", LENGTH, chunks=CALIBRATION_CHUNKS)
        self.texts = {
            name: chunks_of(tokenizer, shared / "text" / file, LENGTH, chunks=chunks) for name, file in TEXTS.items()
        }
        self.plain = self.see(self.model)
        self.base = {name: predictions(self.network(Variant(self.plain, {})), self.texts[name]) for name in self.texts}

    def see(self, model: Model) -> Seen:
        """Run the calibration text through a model."""
        network = calibration_network(model, self.threads)
        seen = Seen(model, network, {}, {}, {})
        for layer in float_stream.layers(network, self.fit):
            seen.layers.append(layer)
            for stage in layer.stages:
                for weight in stage.weights:
                    seen.values[weight.name] = weight.decode()
                    seen.hessian[weight.name] = layer.fit.of(weight, 0).mean_hessian()
                    seen.largest[weight.name] = layer.fit.largest[weight.name, 0]
        return seen

    # ---- measuring

    def network(self, variant: Variant) -> Network:
        tensors = [
            holding(tensor, variant.contents[tensor.name]) if tensor.name in variant.contents else tensor
            for tensor in variant.seen.model.tensors
        ]
        operations = make_operations(variant.activations, self.threads)
        model = replace(variant.seen.model, tensors=tensors)
        return Network(model, operations, length=LENGTH, kv_type=variant.kv_type)

    def divergences(self, variant: Variant) -> dict[str, list[float]]:
        """Text -> mean KL divergence of every chunk."""
        network = self.network(variant)
        return {
            text: [
                float(network.operations.divergence(base, own)[0].mean())
                for base, own in zip(self.base[text], predictions(network, self.texts[text]), strict=True)
            ]
            for text in self.texts
        }

    def every(self, work: Callable[[str], Packed], seen: Seen | None = None) -> dict[str, Packed]:
        """``work`` on all matrices of the blocks."""
        with ThreadPoolExecutor(self.threads) as pool:
            names = list((seen or self.plain).values)
            return dict(zip(names, pool.map(work, names), strict=True))


# ---- encoders of the stock types


def searched(bench: Bench, kind: str, search: str, *, weigh: bool, seen: Seen | None = None) -> dict[str, Packed]:
    """The scale search, with or without importance."""
    tensor_type, seen = BY_NAME[kind], seen or bench.plain

    def one(name: str) -> Packed:
        importance = seen.importance(name) if weigh else None
        own = search_for(tensor_type, search)
        return Packed(tensor_type, kernels.encode(tensor_type.id, seen.values[name], importance, search=own))

    return bench.every(one, seen)


def compensated(bench: Bench, kind: str, effort: Effort, seen: Seen | None = None) -> dict[str, Packed]:
    """GPTQ, polish, refit: those that ``effort`` names, one after the other."""
    tensor_type, seen = BY_NAME[kind], seen or bench.plain

    def one(name: str) -> Packed:
        metric = Metric.of(seen.hessian[name], group=compensation.columns_together(tensor_type))
        blocks = compensation.plain(tensor_type, seen.values[name], metric)
        compensation.improve(tensor_type, seen.values[name], blocks, metric, effort)
        return Packed(tensor_type, blocks)

    return bench.every(one, seen)


def half_quadratic(bench: Bench, kind: str) -> dict[str, Packed]:
    tensor_type = BY_NAME[kind]

    def one(name: str) -> Packed:
        values = bench.plain.values[name]
        blocks = kernels.encode(tensor_type.id, values, None, search=search_for(tensor_type, "best"))
        hqq.improve(tensor_type, values, blocks)
        return Packed(tensor_type, blocks)

    return bench.every(one)


def stochastic(bench: Bench, kind: str, times: int) -> dict[str, Packed]:
    """Codes rounded up or down with the probability of their distance; of every row the draw that loses least."""
    tensor_type = BY_NAME[kind]
    layout = kernels.layout(tensor_type.id)
    assert layout is not None

    def one(name: str) -> Packed:
        values, hessian = bench.plain.values[name], bench.plain.hessian[name]
        blocks = kernels.encode(tensor_type.id, values, bench.plain.importance(name), search="best")
        scale, minimum = (
            numpy.repeat(part, layout.sub_block, axis=1)
            for part in kernels.parameters(tensor_type.id, blocks, *values.shape)
        )
        with numpy.errstate(all="ignore"):
            places = numpy.nan_to_num((values - minimum) / scale)
        random = numpy.random.default_rng([SEED, len(values), hash_of(name)])
        best, least = None, None
        for _ in range(times):
            codes = numpy.clip(numpy.floor(places + random.random(places.shape)), layout.low, layout.high)
            made = (scale * codes + minimum).astype(numpy.float32)
            error = (made - values).astype(numpy.float64)
            lost = numpy.einsum("ij,ij->i", error @ hessian, error)
            if best is None or least is None:
                best, least = made, lost
            else:
                better = lost < least
                best[better], least[better] = made[better], lost[better]
        assert best is not None
        return Packed.of(best)

    return bench.every(one)


def hash_of(name: str) -> int:
    return sum((i + 1) * ord(letter) for i, letter in enumerate(name))


# ---- simulations in float32


def simulated(bench: Bench, work: Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray], numpy.ndarray]) -> Contents:
    """``work(values, importance, hessian)`` on every matrix."""
    seen = bench.plain
    return bench.every(lambda name: Packed.of(work(seen.values[name], seen.importance(name), seen.hessian[name])))


def by_observer(name: str) -> Callable:
    observer = observers.OBSERVERS[name]
    return lambda values, importance, hessian: observers.rounded(values, observer(values, importance))


def per_tensor(values: numpy.ndarray, importance: numpy.ndarray, hessian: numpy.ndarray) -> numpy.ndarray:
    return observers.rounded(values, numpy.full(len(values), numpy.abs(values).max(), numpy.float32))


def normal_float(values: numpy.ndarray, importance: numpy.ndarray, hessian: numpy.ndarray) -> numpy.ndarray:
    """NF4's levels, one half-precision scale for 32 weights from the largest: 4.5 bits per weight."""
    blocks = values.reshape(-1, 32)
    scale = numpy.abs(blocks).max(axis=1, keepdims=True).astype(numpy.float16).astype(numpy.float32)
    levels = numpy.array(NF4, numpy.float32)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = numpy.searchsorted(middles, blocks / numpy.maximum(scale, 1e-30))
    return (levels[codes] * scale).reshape(values.shape)


def ternary(values: numpy.ndarray, border: Callable[[numpy.ndarray], numpy.ndarray]) -> numpy.ndarray:
    """Blocks of 256: what is beyond the ``border`` [blocks, 1] becomes plus or minus its mean, the rest zero."""
    blocks = values.reshape(-1, 256)
    sizes = numpy.abs(blocks)
    kept = sizes > border(sizes)
    level = (sizes * kept).sum(axis=1, keepdims=True) / numpy.maximum(kept.sum(axis=1, keepdims=True), 1)
    return (numpy.sign(blocks) * kept * level).astype(numpy.float32).reshape(values.shape)


def best_border(sizes: numpy.ndarray) -> numpy.ndarray:
    """The border of least squared error: of all numbers of survivors the one with the largest (sum)^2 / count."""
    order = -numpy.sort(-sizes, axis=1)
    gain = numpy.square(numpy.cumsum(order, axis=1)) / numpy.arange(1, sizes.shape[1] + 1)
    place = numpy.minimum(gain.argmax(axis=1) + 1, sizes.shape[1] - 1)[:, None]
    return numpy.take_along_axis(order, place, axis=1)


TERNARY = {  # simulated: no stock encoder does so, TQ types could hold them
    "BWN: signs and mean": lambda v, i, h: ternary(v, lambda sizes: numpy.full((len(sizes), 1), -1.0)),
    "TWN: border at 0.7 of the mean": lambda v, i, h: ternary(v, lambda sizes: 0.7 * sizes.mean(axis=1, keepdims=True)),
    "TWN: best border": lambda v, i, h: ternary(v, best_border),
}


def q4_0(values: numpy.ndarray, importance: numpy.ndarray) -> numpy.ndarray:
    blocks = kernels.encode(BY_NAME["Q4_0"].id, values, importance, search="best")
    return kernels.decode(BY_NAME["Q4_0"].id, blocks, *values.shape)


def weak_columns(values: numpy.ndarray, importance: numpy.ndarray, hessian: numpy.ndarray) -> numpy.ndarray:
    """OWQ: the hundredth of the columns with the largest h_j |dW_j|^2 stays as it is."""
    made = q4_0(values, importance)
    lost = importance * numpy.square(made - values).sum(axis=0)
    kept = numpy.argsort(-lost)[: math.ceil(len(lost) / 100)]
    made[:, kept] = values[:, kept]
    return made


def without_outliers(values: numpy.ndarray, importance: numpy.ndarray, hessian: numpy.ndarray) -> numpy.ndarray:
    """SqueezeLLM, GOBO: one weight in 200, the largest, is kept apart and makes no block's scale larger."""
    border = numpy.quantile(numpy.abs(values), 0.995)
    apart = numpy.abs(values) > border
    made = q4_0(numpy.where(apart, 0, values).astype(numpy.float32), importance)
    return numpy.where(apart, values, made)


def pruned(values: numpy.ndarray, importance: numpy.ndarray, hessian: numpy.ndarray) -> numpy.ndarray:
    """Three weights in ten, those with the least h_j w^2, are zero; nothing is quantized."""
    salience = importance * numpy.square(values)
    return numpy.where(salience < numpy.quantile(salience, 0.3), 0, values).astype(numpy.float32)


def low_rank(bench: Bench, kind: str, rank: int, *, start: Contents | None = None) -> tuple[Contents, str]:
    """LoRC: blocks and a term of low rank for E L, H = L L^T, as a LoRA adapter in half precision has it."""
    tensor_type, seen = BY_NAME[kind], bench.plain
    begun = start or searched(bench, kind, "best", weigh=True)
    size = base = 0
    made = {}
    for name, packed in begun.items():
        values, hessian = seen.values[name], seen.hessian[name]
        decoded = kernels.decode(tensor_type.id, packed.data, *values.shape)
        triangle = numpy.linalg.cholesky(hessian + 1e-4 * numpy.mean(numpy.diagonal(hessian)) * numpy.eye(len(hessian)))
        left, sizes, right = numpy.linalg.svd((values - decoded).astype(numpy.float64) @ triangle, full_matrices=False)
        up = (left[:, :rank] * sizes[:rank]).astype(numpy.float16).astype(numpy.float32)
        down = numpy.linalg.solve(triangle.T, right[:rank].T).T.astype(numpy.float16).astype(numpy.float32)
        made[name] = Packed.of(decoded + up @ down)
        size, base = size + 2 * (up.size + down.size), base + packed.data.nbytes
    weights = sum(one.size for one in seen.values.values())
    return made, f"adapter {size / 1e6:.2f} MB on {base / 1e6:.2f} MB of blocks, {8 * (base + size) / weights:.2f} bpw"


# ---- exact rewrites


def rescaled(bench: Bench, transform: str, kind: str) -> Seen:
    """The model with a transform's factors."""
    seen = bench.plain
    types = dict.fromkeys(seen.values, BY_NAME[kind])
    merging = Merging(seen.model, seen.network.settings, types, exact_feeds(seen.network))
    factors: dict[str, rescale.Factors] = {}
    for layer in seen.layers:
        for name, one in merging.layer(transform, layer).items():
            factors[name] = factors.get(name, rescale.Factors()).times(one)
    return bench.see(rescale.apply(seen.model, factors))


def orthogonal(width: int) -> numpy.ndarray:
    """Hadamard's matrix [width, width] in float64; of a width that is no power of two its product with a random one."""
    even = width & -width
    odd, _ = numpy.linalg.qr(numpy.random.default_rng(SEED).standard_normal((width // even, width // even)))
    return numpy.kron(odd, cache.hadamard(even).astype(numpy.float64)) if even < width else cache.hadamard(width)


def random_basis(read: Read, names: Sequence[str], width: int) -> numpy.ndarray:
    """Hadamard's matrix with random signs, [width, width]."""
    return orthogonal(width) * numpy.random.default_rng(SEED).choice([-1.0, 1.0], width)[:, None]


def eigenbasis(read: Read, names: Sequence[str], width: int) -> numpy.ndarray:
    """WOMI of OSTQuant: eigenvectors of the weights' covariance, then Hadamard's matrix, which spreads each evenly."""
    both = [read(name) for name in names]
    covariance = sum(one.T @ one if one.shape[1] == width else one @ one.T for one in both)
    _, vectors = numpy.linalg.eigh(covariance)
    return vectors @ orthogonal(width)


def rotated(bench: Bench, model: Model | None = None, basis: Basis = random_basis) -> Seen:
    """R1 of QuaRot: norm weights folded into what reads them, a rotation of the residual stream.

    The head is no longer the embedding's: it has the final norm's weights in it. Everything in float64.
    """
    model = model or bench.model
    tensors = {tensor.name: tensor for tensor in model.tensors}
    width = tensors["token_embd.weight"].columns

    def read(name: str) -> numpy.ndarray:
        tensor = tensors[name]
        return tensor.reader.read_rows(0, tensor.rows).astype(numpy.float64)

    on_stream = [name for name in bench.plain.values if tensors[name].columns == width or name.endswith(WRITERS)]
    turn = basis(read, on_stream, width)
    made: dict[str, numpy.ndarray] = {"token_embd.weight": read("token_embd.weight") @ turn}
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    made["output.weight"] = (read(head) * read("output_norm.weight").reshape(-1)) @ turn
    made["output_norm.weight"] = numpy.ones((1, width))
    for layer in range(bench.plain.network.settings.layers):
        prefix = f"blk.{layer}."
        for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
            gamma = read(f"{prefix}{norm}.weight").reshape(-1)
            made[f"{prefix}{norm}.weight"] = numpy.ones((1, width))
            for role in readers:
                made[f"{prefix}{role}.weight"] = (read(f"{prefix}{role}.weight") * gamma) @ turn
        for role in ("attn_output", "ffn_down"):
            made[f"{prefix}{role}.weight"] = turn.T @ read(f"{prefix}{role}.weight")
    found = [
        holding(tensor, Packed.of(made[tensor.name].astype(numpy.float32))) if tensor.name in made else tensor
        for tensor in model.tensors
    ]
    if "output.weight" not in tensors:
        extra = replace(tensors["token_embd.weight"], name="output.weight")
        found.append(holding(extra, Packed.of(made["output.weight"].astype(numpy.float32))))
    return bench.see(replace(model, tensors=found))


def in_eigenbasis(bench: Bench) -> Seen:
    """R1 that begins with WOMI's eigenvectors."""
    return rotated(bench, basis=eigenbasis)


def scaled_and_rotated(bench: Bench) -> Seen:
    """OSTQuant's pairs: AWQ's factors, then R1."""
    return rotated(bench, rescaled(bench, "awq", "Q4_0").model)


def heads_rotated(bench: Bench) -> Seen:
    """R2 of QuaRot: Hadamard's matrix between the values of every head and the output matrix; the head stays tied."""
    made = {}
    heads = bench.plain.network.settings.kv_heads
    for name, values in bench.plain.values.items():
        if name.endswith("attn_v.weight"):
            turn = orthogonal(len(values) // heads)
            turned = turn.T @ values.astype(numpy.float64).reshape(heads, -1, values.shape[1])
        elif name.endswith("attn_output.weight"):
            turned = values.astype(numpy.float64).reshape(len(values), -1, len(turn)) @ turn
        else:
            continue
        made[name] = turned.reshape(values.shape).astype(numpy.float32)
    tensors = [
        holding(tensor, Packed.of(made[tensor.name])) if tensor.name in made else tensor
        for tensor in bench.model.tensors
    ]
    return bench.see(replace(bench.model, tensors=tensors))
