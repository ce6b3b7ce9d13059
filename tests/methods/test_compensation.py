"""Compensation: the loss against a plain reference, never above the plain search's, equal bytes, and bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy
import pytest

from helpers import compensation as reference
from quantcli.errors import NoKernel, NonFiniteWeight
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.compensate import Effort
from quantcli.methods import compensation
from quantcli.methods.compensation import Metric

TYPES = [t for t in tensor_types.BY_NAME.values() if compensation.takes(t)]
ISAS = [name for name, supported in kernels.instruction_sets() if supported]
EFFORTS = [
    Effort(True, False, 0, 0, False),
    Effort(True, True, 0, 0, False),
    Effort(True, True, 1, 0, False),
    Effort(guard=False),
]


def names(types):
    return pytest.mark.parametrize("tensor_type", types, ids=lambda t: t.name)


def moments(columns, seed=0):
    """Second moments of inputs of low rank, with noise and columns of different sizes: float64."""
    generator = numpy.random.default_rng(seed)
    rank = columns // 4
    inputs = generator.standard_normal((2 * columns, rank)) @ generator.standard_normal((rank, columns)) / rank**0.5
    inputs += 0.3 * generator.standard_normal(inputs.shape)
    inputs *= numpy.exp(0.7 * generator.standard_normal(columns))
    return inputs.T @ inputs / len(inputs)


def weights(rows, columns, seed=1):
    return (numpy.random.default_rng(seed).standard_normal((rows, columns)) * 0.02).astype(numpy.float32)


def metric_for(tensor_type, hessian):
    return Metric.of(hessian, group=compensation.columns_together(tensor_type))


def hard_moments(columns):
    """Hessians that break a careless encoder, by name."""
    generator = numpy.random.default_rng(7)
    few = generator.standard_normal((3, columns))
    huge = moments(columns)
    huge[5] *= 1e4
    huge[:, 5] *= 1e4
    dead = moments(columns)
    dead[::3] = 0
    dead[:, ::3] = 0
    return {
        "singular": few.T @ few,
        "diagonal": numpy.diag(numpy.exp(3 * generator.standard_normal(columns))),
        "identity": numpy.eye(columns),
        "one huge column": huge,
        "dead columns": dead,
        "zero": numpy.zeros((columns, columns)),
        "all alike": numpy.ones((columns, columns)),
        "tiny": moments(columns) * 1e-20,
        "large": moments(columns) * 1e12,
    }


def hard_rows(columns):
    """Rows that break a careless encoder."""
    rows = weights(9, columns)
    rows[0] = 0
    rows[1] = 0.25
    rows[2, ::2] = 0
    rows[3] *= 1e-30
    rows[4] *= 1e4
    rows[5, 7] = 30
    rows[6] = numpy.abs(rows[6])
    rows[7] = -numpy.abs(rows[7])
    rows[8, 32:] = 0
    return rows


# ---- the loss


@pytest.mark.parametrize("effort", EFFORTS, ids=["gptq", "polish", "refit", "all"])
@pytest.mark.parametrize("name", reference.FORMS)
def test_the_loss_is_that_of_the_reference(name, effort):
    tensor_type, metric, rows = tensor_types.BY_NAME[name], Metric.of(moments(256)), weights(4, 256)
    blocks = compensation.plain(tensor_type, rows, metric)
    expected = reference.encode(name, rows, blocks, metric, effort)
    compensation.improve(tensor_type, rows, blocks, metric, effort)
    assert compensation.loss(tensor_type, rows, blocks, metric) == pytest.approx(expected, rel=1e-2)
    assert compensation.loss(tensor_type, rows, blocks, metric).sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_points_of_eight_are_nearly_the_best_ones():
    """IQ2_XS: block LDLQ with every point and every even choice of signs, in float64."""
    tensor_type, rows = tensor_types.BY_NAME["IQ2_XS"], weights(2, 256)
    metric = metric_for(tensor_type, moments(256))
    blocks = compensation.plain(tensor_type, rows, metric)
    expected = reference.block_ldlq(tensor_type, rows, blocks, metric)
    compensation.improve(tensor_type, rows, blocks, metric, EFFORTS[0])
    found = compensation.loss(tensor_type, rows, blocks, metric)
    assert found.sum() < 1.05 * expected.sum()


@names(TYPES)
def test_every_part_lowers_the_loss(tensor_type):
    metric, rows = metric_for(tensor_type, moments(512)), weights(24, 512)
    losses = [compensation.loss(tensor_type, rows, compensation.plain(tensor_type, rows, metric), metric).sum()]
    for effort in EFFORTS:
        blocks = compensation.plain(tensor_type, rows, metric)
        compensation.improve(tensor_type, rows, blocks, metric, effort)
        losses.append(compensation.loss(tensor_type, rows, blocks, metric).sum())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


@names(TYPES)
@pytest.mark.parametrize("name", hard_moments(256))
def test_no_row_is_worse_than_the_plain_search(tensor_type, name):
    metric, rows = metric_for(tensor_type, hard_moments(256)[name]), hard_rows(256)
    blocks = compensation.encode(tensor_type, rows, metric)
    plain = compensation.plain(tensor_type, rows, metric)
    assert kernels.validate(tensor_type.id, blocks, *rows.shape) is None
    before = compensation.loss(tensor_type, rows, plain, metric)
    after = compensation.loss(tensor_type, rows, blocks, metric)
    assert (after <= before * (1 + 1e-4)).all()


def test_rows_that_cannot_be_better_are_counted():
    """A row on the grid has no error; zeros neither."""
    tensor_type, metric = tensor_types.BY_NAME["Q4_0"], Metric.of(moments(256))
    rows = weights(5, 256)
    rows[1] = 0
    rows[3] = kernels.decode(tensor_type.id, compensation.plain(tensor_type, rows[3:4], metric), 1, 256)
    plain = compensation.plain(tensor_type, rows, metric)
    blocks = plain.copy()
    assert compensation.improve(tensor_type, rows, blocks, metric)[0] >= 1
    assert numpy.array_equal(blocks[1], plain[1])


@names(TYPES)
def test_other_scales_with_codes_of_their_own(tensor_type):
    """Where refits and polishes agree, a neighbouring scale is still better in some sub-blocks: of 32 at most."""
    mild = moments(512)
    mild += numpy.diag(mild.diagonal())
    metric, rows = metric_for(tensor_type, mild), weights(64, 512)
    found = compensation.plain(tensor_type, rows, metric)
    _, before = compensation.improve(tensor_type, rows, found, metric, Effort(True, True, 8, 2))
    again, other = found.copy(), found.copy()
    _, same = compensation.improve(tensor_type, rows, again, metric, Effort(False, False, 1, 1))
    _, after = compensation.improve(tensor_type, rows, other, metric, Effort(False, False, 1, 1, recode=True))
    assert numpy.allclose(after, compensation.loss(tensor_type, rows, other, metric), rtol=1e-3)
    assert (after <= before * (1 + 1e-5)).all() and after.sum() <= same.sum()
    if compensation.columns_together(tensor_type) == 8 or tensor_type.name.startswith("TQ"):
        assert numpy.array_equal(other, again)
    elif tensor_type.name not in ("Q4_1", "Q5_1"):  # finer than the steps that are tried
        assert (after < same * (1 - 1e-5)).any()


# ---- equal bytes


@names(TYPES)
@pytest.mark.parametrize(("columns", "work"), [(256, compensation.THOROUGH), (512, compensation.QUICK)])
def test_every_instruction_set_gives_the_same_bytes(tensor_type, columns, work):
    metric, rows = (
        metric_for(tensor_type, moments(columns)),
        numpy.concatenate([weights(3, columns), hard_rows(columns)]),
    )
    found = [compensation.encode(tensor_type, rows, metric, work, isa=isa) for isa in ISAS]
    assert all(numpy.array_equal(blocks, found[0]) for blocks in found)


@names(TYPES)
def test_slabs_and_threads_do_not_change_a_byte(tensor_type):
    metric, rows = metric_for(tensor_type, moments(256)), weights(83, 256)
    whole = compensation.encode(tensor_type, rows, metric)
    cuts = [0, 1, 8, 41, 83]
    with ThreadPoolExecutor(3) as pool:
        parts = pool.map(
            lambda cut: compensation.encode(tensor_type, rows[cut[0] : cut[1]], metric),
            pairwise(cuts),
        )
        assert numpy.array_equal(numpy.concatenate(list(parts)), whole)


@names([t for t in TYPES if t.block == 32])
@pytest.mark.parametrize("columns", [32, 96, 288])
def test_rows_of_any_number_of_blocks(tensor_type, columns):
    metric, rows = metric_for(tensor_type, moments(columns)), weights(5, columns)
    before = compensation.loss(tensor_type, rows, compensation.plain(tensor_type, rows, metric), metric)
    after = compensation.loss(tensor_type, rows, compensation.encode(tensor_type, rows, metric), metric)
    assert (after <= before).all()


def improved(tensor_type, rows, metric, effort):
    blocks = compensation.plain(tensor_type, rows, metric)
    compensation.improve(tensor_type, rows, blocks, metric, effort)
    return blocks


def test_from_the_plain_codes():
    tensor_type, metric, rows = tensor_types.BY_NAME["Q3_K"], Metric.of(moments(512)), weights(8, 512)
    plain, without, full = (
        compensation.loss(tensor_type, rows, blocks, metric).sum()
        for blocks in (
            compensation.plain(tensor_type, rows, metric),
            improved(tensor_type, rows, metric, Effort(False)),
            improved(tensor_type, rows, metric, Effort()),
        )
    )
    assert full < without < 0.5 * plain


# ---- the metric


def test_the_metric_factors_its_hessian():
    metric = Metric.of(moments(96))
    permuted = metric.hessian[numpy.ix_(metric.order, metric.order)].astype(float)
    unit = metric.factor.astype(float) + numpy.eye(96)
    middle = numpy.linalg.solve(unit, permuted) @ numpy.linalg.inv(unit).T
    assert numpy.abs(numpy.tril(metric.factor)).max() == 0
    assert numpy.abs(middle - numpy.diag(middle.diagonal())).max() < 1e-4 * numpy.abs(permuted).max()
    assert (numpy.diff(metric.hessian.diagonal()[metric.order]) <= 0).all()
    assert metric.damping == 0.01


def test_a_singular_hessian_is_damped_until_it_is_not():
    few = numpy.random.default_rng(0).standard_normal((2, 64))
    assert Metric.of(few.T @ few, damping=0.0).damping > 0
    wrong = -numpy.ones((64, 64)) + 2 * numpy.eye(64)  # not even positive
    assert Metric.of(wrong).damping > 0.5


def test_the_metric_of_groups_factors_its_hessian():
    metric = Metric.of(moments(96), group=8)
    permuted = metric.hessian[numpy.ix_(metric.order, metric.order)].astype(float)
    unit, middle = metric.factor.astype(float) + numpy.eye(96), numpy.zeros((96, 96))
    for i, block in enumerate(metric.pivots):
        middle[8 * i : 8 * i + 8, 8 * i : 8 * i + 8] = block
    assert numpy.abs(unit @ middle @ unit.T - permuted).max() < 1e-5 * numpy.abs(permuted).max()


def test_groups_are_ordered_by_their_sums():
    hessian = numpy.diag(numpy.arange(32.0) + 1)
    assert Metric.of(hessian, group=8).order.tolist() == [*range(24, 32), *range(16, 24), *range(8, 16), *range(8)]


@pytest.mark.parametrize("hessian", [numpy.ones((2, 3)), numpy.full((4, 4), numpy.nan), -numpy.eye(4)])
def test_no_metric_of_what_is_no_hessian(hessian):
    with pytest.raises(ValueError, match="Hessian"):
        Metric.of(hessian)


# ---- bad input


def test_a_weight_that_is_not_finite_is_an_error():
    rows = weights(4, 256)
    rows[2, 9] = numpy.nan
    with pytest.raises(NonFiniteWeight) as caught:
        compensation.encode(tensor_types.BY_NAME["Q4_K"], rows, Metric.of(moments(256)))
    assert (caught.value.row, caught.value.column) == (2, 9)


def test_types_without_an_encoder_and_other_metrics_are_refused():
    metric, rows = Metric.of(moments(256)), weights(2, 256)
    assert not compensation.takes(tensor_types.BY_NAME["F16"])
    with pytest.raises(NoKernel):
        compensation.encode(tensor_types.BY_NAME["F16"], rows, metric)
    with pytest.raises(ValueError, match="columns"):
        compensation.encode(tensor_types.BY_NAME["Q4_0"], weights(2, 128), metric)
    with pytest.raises(ValueError, match="together"):
        compensation.encode(tensor_types.BY_NAME["IQ2_XS"], rows, metric)


def test_no_rows():
    assert compensation.encode(tensor_types.BY_NAME["Q4_0"], weights(0, 64), Metric.of(moments(64))).shape == (0, 36)


@names(TYPES)
def test_losses_are_told_and_of_several_starts_the_best_is_kept(tensor_type):
    metric, rows = metric_for(tensor_type, moments(256)), weights(24, 256)
    ends = []
    for power in compensation.THOROUGH.powers:
        blocks = compensation.plain(tensor_type, rows, metric, power=power)
        _, told = compensation.improve(tensor_type, rows, blocks, metric)
        losses = compensation.loss(tensor_type, rows, blocks, metric)
        assert told == pytest.approx(losses, rel=1e-3, abs=1e-5 * losses.max())
        ends.append(losses)
    found = compensation.loss(tensor_type, rows, compensation.encode(tensor_type, rows, metric), metric)
    assert found.sum() < 1.01 * numpy.min(ends, axis=0).sum()
    if tensor_type.importance != "ignored":
        assert found.sum() < 0.999 * ends[0].sum()
