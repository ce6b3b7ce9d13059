"""The table of embeddings and the output matrix, encoded for what their rows do to the model's predictions.

An error e of row v of the output matrix costs f_v e Hx e^T, Hx = E[(1 - sum p^2) x x^T] of the final norm's outputs x;
as an embedding it costs f_v e S e^T, S the second moment of the loss's gradient at the embeddings. f_v, how frequent
the token is, scales rows alone. S needs a backward pass, which Llama-like models have (gradients.py); what others use
instead has its trace, from one pass with noise on the embeddings (KL = sigma^2 tr S / 2), half spread as the first
norm's weights say, g^2, half evenly, for the residual stream carries all channels on: S' = tr(S) (diag(g^2) / sum(g^2)
+ I / n) / 2. A table that is both has Hx + S. Where the compensated encoding is not measured to be nearer to the model,
the plain one stays.

The token that begins every text is read by all positions behind it, and its one row can cost as much as all the others:
it is encoded several times, and the codes that are measured to be nearest stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy

from quantcli.calibration import probes
from quantcli.calibration.encoding import StageEncoder
from quantcli.calibration.evidence import Found, Recorded
from quantcli.calibration.folder import Folder
from quantcli.calibration.gradients import Gradients
from quantcli.calibration.probes import Scored
from quantcli.calibration.tokens import Calibration
from quantcli.ggml import kernels
from quantcli.methods import compensation
from quantcli.methods.plain import search_for
from quantcli.runner.arrays import Bytes, Doubles, Floats, Tokens
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, PackedMatrix

TOKENS = 8192  # for Hx at least, and 8 per column
NOISE_TOKENS = 4096  # for its trace alone
JUDGING_TOKENS = 2048  # held out
NOISE = 0.02  # of the embeddings' standard deviation
SEED = 20_260_102
RIDGE = 0.01  # of the mean of S, on the diagonal of embeddings that are no output matrix
ROWS_TRIED = 8  # encodings of the row that begins every text
BEGINNINGS, BEGINNING = 8, 96  # texts, and tokens of each, that they are measured on


def of(network: Network) -> dict[str, PackedMatrix]:
    """The tables of a model by name: the embeddings, and the output matrix where it is another one."""
    return {matrix.name: matrix for matrix in (network.embeddings, network.head_matrix())}


def hessians(gradients: Gradients) -> dict[str, Doubles]:
    """What an error of a row costs, float64 [columns, columns], by the names of `of`."""
    network = gradients.network
    embeddings, head = network.embeddings.name, network.head_matrix().name
    if gradients.found is not None:
        hx, s = gradients.found.head, gradients.found.embeddings
    else:
        hx, s = output_moments(network, gradients.chunks), look_up_moments(network, gradients.chunks)
    if embeddings == head:
        return {head: hx + s}
    return {embeddings: s + RIDGE * numpy.trace(s) / len(s) * numpy.eye(len(s)), head: hx}


def output_moments(network: Network, chunks: Chunks) -> Doubles:
    """Hx."""
    wanted = max(TOKENS, 8 * network.settings.hidden)
    total, count = numpy.zeros((network.settings.hidden,) * 2), 0
    for ids in _one_by_one(probes.some_of(chunks, 2 * wanted)):
        x = network.stream(ids)[:, probes.FIRST % ids.shape[1] :: 2]
        chances = numpy.exp(network.log_probs(x).reshape(-1, network.vocabulary))
        open_ = 1 - numpy.einsum("ij,ij->i", chances, chances)
        normed = network.engine.norm("output_norm", x).reshape(-1, x.shape[-1])
        total += (normed * open_[:, None]).T @ normed
        count += len(normed)
    return total / count * network.settings.logit_scale**2


def look_up_moments(network: Network, chunks: Chunks) -> Doubles:
    """S'."""
    found = []
    for number, ids in enumerate(_one_by_one(probes.some_of(chunks, NOISE_TOKENS))):
        x = network.embed(ids)
        sigma = NOISE * float(x.std())
        noise = numpy.random.default_rng((SEED, number)).standard_normal(x.shape, numpy.float32)
        if chunks.bos is not None:
            noise[:, 0] = 0  # its row is looked after by itself
        expected = Scored.of(network, _through(network, x))
        changed = _through(network, x + numpy.float32(sigma) * noise)
        found.append(2 * expected.divergence(network, changed) / sigma**2)
    squares = numpy.square(_first_norm(network).astype(numpy.float64))
    trace = max(float(numpy.mean(found)), 1e-30) * network.settings.embedding_scale**2
    result: Doubles = numpy.diag(trace * (squares / squares.sum() + 1 / len(squares)) / 2)
    return result


def _first_norm(network: Network) -> Floats:
    name = "blk.0.attn_norm.weight"
    ones = numpy.ones(network.settings.hidden, numpy.float32)
    return network.weights.vector(name).reshape(-1) if name in network.weights else ones


def _one_by_one(chunks: Chunks) -> list[Tokens]:
    return [chunks.inputs(number, number + 1) for number in range(len(chunks))]


def _through(network: Network, x: Floats) -> Floats:
    cache = network.new_cache(*x.shape[:2])
    for index in range(network.settings.layers):
        x = network.layer(index, x, cache)
        cache.drop(index)
    return x


# ---- encoding


def encode(
    network: Network,
    calibration: Calibration,
    encoder: StageEncoder,
    gradients: Gradients,
    store: Folder | None = None,
) -> dict[str, Packed]:
    """The tables that have a type with a compensating encoder. ``store`` keeps what they were encoded with.

    Raises NonFiniteResult.
    """
    wanted = {
        name: matrix
        for name, matrix in of(network).items()
        if name in encoder.types and compensation.takes(encoder.types[name])
    }
    stored = {name: store.read(_kept(name)) if store is not None else None for name in wanted}
    known = hessians(gradients) if any(one is None for one in stored.values()) else {}
    found = {}
    for name, matrix in wanted.items():
        record = stored[name]
        if store is None or record is None:
            evidence = Found([], [known[name]], encoder.settings.damping)
            found[name] = _measured(network, calibration, encoder, matrix, evidence)
            if store is not None:
                store.write(_kept(name), evidence.record)
        else:
            found[name] = _recorded(calibration, encoder, matrix, Recorded.of(store, _kept(name), record))
    return found


def _kept(name: str) -> str:
    return name.removesuffix(".weight")


def _measured(
    network: Network, calibration: Calibration, encoder: StageEncoder, matrix: PackedMatrix, evidence: Found
) -> Packed:
    """The better encoding. ``evidence`` notes which one that is."""
    tensor_type = encoder.types[matrix.name]
    metric = evidence.metric(0, compensation.columns_together(tensor_type))
    plain, compensated = encoder.table(matrix, tensor_type, metric)
    judge = Judge.of(network, probes.some_of(calibration.held_out, JUDGING_TOKENS))
    keep = judge.divergence({matrix.name: compensated}, calibration.fit.bos) <= judge.divergence(
        {matrix.name: plain}, calibration.fit.bos
    )
    evidence.record["keep"] = numpy.array([keep], numpy.uint8)
    chosen = compensated if keep else plain
    if matrix.name == network.embeddings.name and calibration.fit.bos is not None:
        row = nearest_row(network, chosen, calibration.fit, calibration.fit.bos)
        evidence.record["row"] = row
        chosen.data[calibration.fit.bos] = row
    return chosen


def _recorded(calibration: Calibration, encoder: StageEncoder, matrix: PackedMatrix, evidence: Recorded) -> Packed:
    tensor_type = encoder.types[matrix.name]
    metric = evidence.metric(0, compensation.columns_together(tensor_type))
    chosen = encoder.table(matrix, tensor_type, metric)[int(evidence.array("keep", (1,))[0] != 0)]
    if "row" in evidence.arrays and calibration.fit.bos is not None:
        row = evidence.array("row", chosen.data[calibration.fit.bos].shape)
        chosen.data[calibration.fit.bos] = row.astype(numpy.uint8)
    return chosen


def nearest_row(network: Network, table: Packed, chunks: Chunks, token: int) -> Bytes:
    """Blocks of the row of the token that begins every text, the best of several encodings by measured divergence."""
    values = network.embeddings.take(numpy.array([token]))
    kept: Bytes = table.data[token].copy()
    spread = numpy.abs(kernels.decode(table.type.id, table.data[token : token + 1], *values.shape) - values).mean()
    noise = numpy.random.default_rng(SEED).standard_normal((ROWS_TRIED, values.shape[1]), numpy.float32)
    noise[0] = 0
    search = search_for(table.type, None)
    tried = kernels.encode(
        table.type.id, values + spread * noise, numpy.ones(values.shape[1], numpy.float32), search=search
    )
    step = max(1, len(chunks) // BEGINNINGS)
    judge = Judge(network, [chunks.inputs(0, len(chunks))[::step][:BEGINNINGS, :BEGINNING]])
    best, least = kept, judge.row(network.embeddings, token, kernels.decode(table.type.id, kept[None], *values.shape))
    for blocks in tried:
        found = judge.row(network.embeddings, token, kernels.decode(table.type.id, blocks[None], *values.shape))
        if found < least:
            best, least = blocks, found
    return best


class Judge:
    """Measures changes of a model on a text. The predictions on all of it are held: it should be short."""

    def __init__(self, network: Network, inputs: Sequence[Tokens]) -> None:
        """``inputs``: ids [S, T] each."""
        self.network, self.inputs = network, inputs
        self.expected = [Scored.of(network, network.stream(ids)) for ids in inputs]

    @classmethod
    def of(cls, network: Network, chunks: Chunks) -> Judge:
        """On chunks, one by one."""
        return cls(network, _one_by_one(chunks))

    def divergence(self, contents: Mapping[str, Packed], exact: int | None = None) -> float:
        """KL(model || the model with other ``contents``), mean over positions.

        ``exact``: a token that keeps its embedding, such as the one that begins every text: see `nearest_row`.
        """
        changed, found = self.network.replacing(contents), []
        for ids, one in zip(self.inputs, self.expected, strict=True):
            x = changed.embed(ids)
            if exact is not None:
                x[ids == exact] = self.network.embed(ids)[ids == exact]
            found.append(one.divergence(changed, _through(changed, x)))
        return float(numpy.mean(found))

    def row(self, embeddings: PackedMatrix, token: int, values: Floats) -> float:
        """KL(model || the model with other ``values`` [1, H] as the embedding of ``token``), the output left alone."""
        change = (values - embeddings.take(numpy.array([token])))[0] * numpy.float32(
            self.network.settings.embedding_scale
        )
        found = []
        for ids, one in zip(self.inputs, self.expected, strict=True):
            x = self.network.embed(ids)
            x[ids == token] += change
            found.append(one.divergence(self.network, _through(self.network, x)))
        return float(numpy.mean(found))
